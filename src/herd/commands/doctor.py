"""`herd doctor`: what this machine has, what herd uses of it, and which of the released models it can run how fast."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herd.commands.rates import Rate
    from herd.llama.config import LlamaConfig

_EXTRAS = {  # name of an extra -> the modules that it installs
    "hub": ("huggingface_hub",),
    "gguf": ("gguf",),
    "sentencepiece": ("sentencepiece",),
    "transformers": ("transformers", "compressed_tensors"),
    "grammar": ("llguidance",),
    "serve": ("fastapi", "uvicorn", "httptools", "uvloop", "prometheus_client", "llguidance"),
    "remote": ("fsspec", "s3fs", "gcsfs", "huggingface_hub"),
    "corpus": ("zstandard", "daft", "ray"),
    "fp8": ("torchao",),
    "vllm": ("vllm",),
}
_WIDTH = 29  # of a column of the table


def doctor() -> int:
    """Prints, a line a fact. Measures for five seconds or so."""
    for line in lines():
        print(line, flush=True)
    return 0


def lines() -> Iterator[str]:
    """What is printed, each line as soon as it is known."""
    import torch

    from herd.commands import rates
    from herd.devices import find_device, free_memory
    from herd.kernels import status
    from herd.kernels.library import built
    from herd.road.machine import machine

    here, free = machine(), free_memory(torch.device("cpu"))
    memory = f", {here.memory_bytes / 2**30:.1f} GiB of memory" if here.memory_bytes else ""
    yield f"machine     {here.cpu}, {here.cores} cores{memory}, {free / 2**30:.1f} GiB free"
    yield f"torch       {here.torch}, {torch.get_num_threads()} threads"
    said: list[str] = []
    find_device("auto", say=said.append)
    yield f"device      {said[0]}"
    yield f"kernels     {status()}"
    yield f"library     {built()}"
    yield f"reads       {rates.reading_rate() / 1e9:.1f} GB/s from memory"
    single, half = rates.matrix_rate(torch.float32), rates.matrix_rate(torch.bfloat16)
    yield f"multiplies  float32 {single / 1e9:,.0f} GFLOP/s, bf16 {half / 1e9:,.0f} GFLOP/s (torch's own products)"
    products = rates.product_rates()
    for kept, rate in products.items():
        reads, multiplies = rate.bytes_per_second / 1e9, rate.flops / 1e9
        yield f"{kept:11} read at {reads:.1f} GB/s for an answer, multiplied at {multiplies:,.0f} GFLOP/s for a prompt"
    yield from (f"extra       {name}: {state}" for name, state in extras().items())
    yield ""
    yield "on this CPU, one conversation, at the most: size, tokens/s of an answer / of a prompt"
    yield from _table(products, free)


def extras() -> dict[str, str]:
    """Each optional part: "installed", or what is missing and how to install it."""
    found = {}
    for name, modules in _EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        found[name] = f"missing {', '.join(missing)}: pip install 'herd[{name}]'" if missing else "installed"
    return found


def _table(rates: Mapping[str, Rate], free: int) -> Iterator[str]:
    from herd.commands.model_costs import FORMS

    yield " " * 18 + "".join(f"{form:{_WIDTH}}" for form in FORMS).rstrip()
    for name, config in _shapes().items():
        cells = [_cell(config, form, rates, free) for form in FORMS]
        yield f"  {name:16}" + "".join(f"{cell:{_WIDTH}}" for cell in cells).rstrip()


def _shapes() -> dict[str, LlamaConfig]:
    from herd.llama.config import VOCABULARY, LlamaConfig, llama31_8b, llama31_70b, llama31_405b

    small = LlamaConfig(VOCABULARY, 2048, 16, 32, 8, 8192, tie_embeddings=True)  # as its config.json says
    large = {"Llama 3.1 8B": llama31_8b(), "Llama 3.1 70B": llama31_70b(), "Llama 3.1 405B": llama31_405b()}
    return {"Llama 3.2 1B": small, **large}


def _cell(config: LlamaConfig, form: str, rates: Mapping[str, Rate], free: int) -> str:
    from herd.commands.model_costs import cost_of

    cost = cost_of(config, form)
    size = f"{cost.stored / 1e9:.1f} GB "
    if cost.stored > free:
        return size + "over what is free"
    return size + f"{1 / cost.answer_seconds(rates):.1f} / {1 / cost.prompt_seconds(rates):,.0f}"
