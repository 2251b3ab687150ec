"""`herd doctor`: what this machine has, what herd uses of it, and which of the released models it can run how fast."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herd.llama.config import LlamaConfig

_EXTRAS = {  # name of an extra -> the modules that it installs
    "hub": ("huggingface_hub",),
    "gguf": ("gguf",),
    "sentencepiece": ("sentencepiece",),
    "transformers": ("transformers", "compressed_tensors"),
    "grammar": ("llguidance",),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "llguidance"),
    "vllm": ("vllm",),
}


def doctor() -> int:
    """Prints, a line a fact. Measures for two or three seconds."""
    for line in lines():
        print(line, flush=True)
    return 0


def lines() -> Iterator[str]:
    """What is printed, each line as soon as it is known."""
    import torch

    from herd.commands import rates
    from herd.devices import find_device, free_memory
    from herd.kernels import status
    from herd.road.machine import machine

    here, free = machine(), free_memory(torch.device("cpu"))
    memory = f", {here.memory_bytes / 2**30:.1f} GiB of memory" if here.memory_bytes else ""
    yield f"machine     {here.cpu}, {here.cores} cores{memory}, {free / 2**30:.1f} GiB free"
    yield f"torch       {here.torch}, {torch.get_num_threads()} threads"
    said: list[str] = []
    find_device("auto", say=said.append)
    yield f"device      {said[0]}"
    yield f"kernels     {status()}"
    rate = rates.reading_rate()
    yield f"reads       {rate / 1e9:.1f} GB/s from memory"
    single, half = rates.matrix_rate(torch.float32), rates.matrix_rate(torch.bfloat16)
    yield f"multiplies  float32 {single / 1e9:,.0f} GFLOP/s, bf16 {half / 1e9:,.0f} GFLOP/s"
    yield from (f"extra       {name}: {state}" for name, state in extras().items())
    yield ""
    yield "on this CPU, one conversation, at the most (every token reads the weights once):"
    yield from _table(rate, free)


def extras() -> dict[str, str]:
    """Each optional part: "installed", or how to install it."""
    return {
        name: "installed"
        if all(importlib.util.find_spec(module) for module in modules)
        else f"missing, pip install 'herd[{name}]'"
        for name, modules in _EXTRAS.items()
    }


def model_bytes(config: LlamaConfig) -> dict[str, int]:
    """Bytes of a model's tensors as BF16, as FP8 by the release's policy, and as a GGUF file in Q8_0."""
    from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES
    from herd.quantize.settings import Fp8Policy
    from herd.weights.stored import expected_shapes

    quantised = {f"{name}.weight" for name in Fp8Policy().names(config.n_layers)}
    found = {"bf16": 0, "fp8": 0, "q8_0": 0}
    for name, shape in expected_shapes(config).items():
        count = math.prod(shape)
        found["bf16"] += 2 * count
        found["fp8"] += count + 4 * shape[0] if name in quantised else 2 * count
        found["q8_0"] += count // Q8_0_VALUES * Q8_0_BYTES if len(shape) == 2 else 4 * count
    return found


def _table(rate: float, free: int) -> Iterator[str]:
    from herd.llama.config import llama31_8b, llama31_70b, llama31_405b

    for name, config in (("8B", llama31_8b()), ("70B", llama31_70b()), ("405B", llama31_405b())):
        cells = [_cell(form, size, rate, free) for form, size in model_bytes(config).items()]
        yield f"  Llama 3.1 {name:5}" + "   ".join(f"{cell:34}" for cell in cells).rstrip()


def _cell(form: str, size: int, rate: float, free: int) -> str:
    fits = f"{rate / size:.1f} tokens/s" if size <= free else "more than is free"
    return f"{form:5}{size / 1e9:6.1f} GB {fits}"
