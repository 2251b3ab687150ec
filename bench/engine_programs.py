"""The programs that `bench.engine` compares, by name: what is started for each, where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.engine_models import Models, models
from bench.engine_side import Side
from bench.sides import PEERS, PEERS_VLLM
from herd.weights import llama_cpp

PREFILL = 512  # tokens of the prompts that prefill is measured with; one program is compiled for them
HERD, HERD_FP8, CPP, CPP_Q8, VLLM, COMPILED = (
    "herd",
    "herd FP8",
    "llama.cpp BF16",
    "llama.cpp Q8_0",
    "vLLM",
    "transformers compiled",
)


class Sides:
    """The programs, started when they are first asked for."""

    def __init__(self, found: Models, stack: ExitStack) -> None:
        self.models, self._stack = found, stack
        self._started: dict[str, Side] = {}

    def get(self, name: str) -> Side | None:
        """None where it is not installed (`make bench-peers`)."""
        if name not in self._started:
            command = self._command(name)
            if command is None:
                return None
            self._started[name] = Side(name, command)
            self._stack.callback(self._started[name].close)
        return self._started[name]

    def _command(self, name: str) -> list[str] | None:
        here, installed = sys.executable, llama_cpp.find_library() is not None
        if name == HERD:
            return [here, "-m", "bench.engine_herd", str(self.models.bf16)]
        if name == HERD_FP8:
            return [here, "-m", "bench.engine_herd", str(self.models.fp8)]
        if name in (CPP, CPP_Q8) and installed:
            file = self.models.gguf("bf16" if name == CPP else "q8_0")
            return [here, "-m", "bench.engine_llama_cpp", str(file)]
        if name == COMPILED and PEERS.exists():
            return [str(PEERS), "-m", "bench.engine_transformers", str(self.models.bf16), str(PREFILL)]
        if name == VLLM and PEERS_VLLM.exists():
            return [str(PEERS_VLLM), "-m", "bench.engine_vllm", str(self.models.bf16)]
        return None


@contextmanager
def sides() -> Iterator[Sides]:
    with models() as found, ExitStack() as stack:
        yield Sides(found, stack)
