"""Products with FP8 weights and attention over pages on a CUDA device, in Triton; imported when a device asks for it.

    products     linear_fp8: torch's FP8 matrix product where the device has one, Triton's elsewhere and for few rows
    attention    paged_attention, prompt_attention: single tokens and parts of prompts over a paged cache
    graphs       Captured: a decoding step as one CUDA graph
    code         the kernels themselves, in Triton's language

Triton comes with torch's CUDA builds. Codes of e4m3 are taken apart by shifts, so that devices without FP8 (before
sm89) have the weights in a byte too. Triton's interpreter (TRITON_INTERPRET=1) runs all of it on the CPU: the tests do.
Where the kernels cannot work (`problem`), `fallback.py` does, in torch.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from herd.kernels import fallback
from herd.kernels.e4m3 import quantize_rows


@cache
def problem(device: torch.device) -> str:
    """Why the kernels cannot work on a device, in words; "" where they can, which is tried once on a small product.

    Triton compiles when a kernel is first used, with a C compiler, into a folder that can be written: any of these may
    be missing on a machine whose torch works well.
    """
    if device.type != "cuda":
        return f"{device.type} is no CUDA device"
    if torch.version.hip is not None:
        return "they are written for NVIDIA's devices"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        return "" if _agrees(device) else "a small product came out wrong"
    except Exception as error:  # whatever a compiler says: the answer is the other way, and why
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def usable(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the kernels multiply these."""
    types = (torch.float32, torch.bfloat16, torch.float16)
    return x.device.type == "cuda" and weight.device == x.device and x.dtype in types and not problem(x.device)


def attends(device: torch.device, dtype: torch.dtype, cache_dtype: torch.dtype) -> bool:
    """Whether the kernels do attention of queries in `dtype` over pages in `cache_dtype` there."""
    types = dtype in (torch.float32, torch.bfloat16, torch.float16)
    return types and cache_dtype in (dtype, torch.float8_e4m3fn) and not problem(device)


def captures(device: torch.device) -> bool:
    """Whether decoding steps can be captured as graphs there: with attention over pages by its kernels alone."""
    return device.type == "cuda" and not problem(device)


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Within, Triton launches on `device`: by itself it asks for torch's current one, whatever the tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _agrees(device: torch.device) -> bool:
    from herd.kernels.gpu import products

    generator = torch.Generator().manual_seed(0)
    x, wide = (torch.randn(shape, generator=generator).to(device) for shape in ((3, 272), (80, 272)))
    weight, scale = quantize_rows(wide)
    found, expected = (work(x, weight, scale, 2.0, False) for work in (products.linear_fp8, fallback.linear_fp8))
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
