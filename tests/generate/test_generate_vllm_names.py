"""The stand-in of vLLM against the package itself, where `.venv-peers-vllm` has it: names, fields and defaults."""

import dataclasses
import inspect
import json
import os
import subprocess
from pathlib import Path

import pytest

import stand_in_vllm

PYTHON = Path(__file__).parents[2] / ".venv-peers-vllm" / "bin" / "python"
ASK = """
import dataclasses, inspect, json
from vllm import AsyncEngineArgs, AsyncLLMEngine, LLM, SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

def names(function):
    return list(inspect.signature(function).parameters)

plain = SamplingParams()
print("ASKED", json.dumps({
    "SamplingParams": {name: repr(getattr(plain, name)) for name in SamplingParams.__struct_fields__},
    "StructuredOutputsParams": [field.name for field in dataclasses.fields(StructuredOutputsParams)],
    "RequestOutputKind": [kind.name for kind in RequestOutputKind],
    "EngineArgs": {field.name: repr(field.default) for field in dataclasses.fields(AsyncEngineArgs)},
    "Logprob": [field.name for field in dataclasses.fields(Logprob)],
    "CompletionOutput": [field.name for field in dataclasses.fields(CompletionOutput)],
    "RequestOutput": names(RequestOutput),
    "LLM.generate": names(LLM.generate),
    "AsyncLLMEngine.generate": names(AsyncLLMEngine.generate),
    "AsyncLLMEngine.from_engine_args": names(AsyncLLMEngine.from_engine_args),
    "AsyncLLMEngine.check_health": names(AsyncLLMEngine.check_health),
    "AsyncLLMEngine.shutdown": names(AsyncLLMEngine.shutdown),
}))
"""


@pytest.fixture(scope="module")
def real():
    if not PYTHON.exists():
        pytest.skip("vLLM is not installed: make bench-peers")
    done = subprocess.run(
        [PYTHON, "-c", ASK], capture_output=True, text=True, env=os.environ | {"VLLM_NO_USAGE_STATS": "1"}, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ASKED ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[-1].removeprefix("ASKED "))


@pytest.mark.slow
def test_the_stand_in_has_the_names_and_defaults_of_vllm(real):
    ours = {field.name: field.default for field in dataclasses.fields(stand_in_vllm.SamplingParams)}
    for name, default in ours.items():
        assert name in real["SamplingParams"]
        if not isinstance(default, stand_in_vllm.RequestOutputKind):
            told = real["SamplingParams"][name]
            assert told == repr(default) or (default is None and told in ("[]", "None"))  # it fills in empty lists
    assert [kind.name for kind in stand_in_vllm.RequestOutputKind] == real["RequestOutputKind"]
    for name in ("StructuredOutputsParams", "Logprob", "CompletionOutput", "RequestOutput", "EngineArgs"):
        fields = {field.name for field in dataclasses.fields(getattr(stand_in_vllm, name))}
        assert fields <= set(real[name]), name
    for name in ("generate", "check_health", "shutdown", "from_engine_args"):
        parameters = set(inspect.signature(getattr(stand_in_vllm.AsyncLLMEngine, name)).parameters)
        assert parameters <= set(real[f"AsyncLLMEngine.{name}"]), name
    assert set(inspect.signature(stand_in_vllm.LLM.generate).parameters) <= set(real["LLM.generate"])
