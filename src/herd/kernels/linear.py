"""x W^T for weights in float32, bfloat16, e4m3, int8 and Q8_0, summed in fp32; x may have any leading shape.

The compiled library does the work where it is there and x is on the CPU; else `fallback.py`. No gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels import fallback, gpu
from herd.kernels.library import Kernels, kernels
from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES

_FP8, _BF16, _INT8, _Q8_0, _F32 = range(5)  # the order of `enum format` in csrc/job.h
FORMATS = {
    torch.float8_e4m3fn: _FP8,
    torch.bfloat16: _BF16,
    torch.int8: _INT8,
    torch.uint8: _Q8_0,
    torch.float32: _F32,
}
TYPES = {torch.float32: 0, torch.bfloat16: 1}  # of activations: `enum xtype`
_UNBOUNDED = float("inf")


def linear_fp8(
    x: Tensor, weight: Tensor, scale: Tensor, *, bound: float | None = None, weight_only: bool = False
) -> Tensor:
    """x [..., K] by e4m3 weight [N, K] with an fp32 scale a row [N, 1] -> [..., N] in x's dtype.

    x is quantised to e4m3 too, one scale a row whose magnitudes count as at most `bound` (paper, section 6.2), unless
    `weight_only`. Every product is exact in fp32. A NaN code in a row of the weight makes its results NaN.
    """
    check(x, weight, torch.float8_e4m3fn, weight.shape[-1], scale)
    found = _usable(x, weight)
    if found is None:
        return _fp8_elsewhere(x, weight, scale, bound, weight_only)
    largest = _UNBOUNDED if bound is None else bound
    return _run(found, _FP8, x, weight, scale, quantise=not weight_only, bound=largest)


def _fp8_elsewhere(x: Tensor, weight: Tensor, scale: Tensor, bound: float | None, weight_only: bool) -> Tensor:
    """Without the library: Triton's kernels on a CUDA device that takes them, else torch."""
    if gpu.usable(x, weight):
        from herd.kernels.gpu import products  # imports Triton

        return products.linear_fp8(x, weight, scale, bound, weight_only)
    return fallback.linear_fp8(x, weight, scale, bound, weight_only)


def linear_bf16(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] by bfloat16 weight [N, K] -> [..., N] in x's dtype, rounded once after a sum in fp32."""
    check(x, weight, torch.bfloat16, weight.shape[-1])
    found = _usable(x, weight)
    return fallback.linear_bf16(x, weight) if found is None else _run(found, _BF16, x, weight)


def linear_f32(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] by float32 weight [N, K] -> [..., N] in x's dtype; a sum takes the columns one after the other."""
    check(x, weight, torch.float32, weight.shape[-1])
    found = _usable(x, weight)
    return fallback.linear_f32(x, weight) if found is None else _run(found, _F32, x, weight)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [..., K] by int8 weight [N, K] with an fp32 scale a row [N, 1] -> [..., N] in x's dtype."""
    check(x, weight, torch.int8, weight.shape[-1], scale)
    found = _usable(x, weight)
    return fallback.linear_int8(x, weight, scale) if found is None else _run(found, _INT8, x, weight, scale)


def linear_q8_0(x: Tensor, blocks: Tensor) -> Tensor:
    """x [..., K] by GGUF's Q8_0 blocks, uint8 [N, K / 32 * 34] -> [..., N] in x's dtype.

    A block is an fp16 scale and 32 int8; x stays as it is, and every scale times an int8 is exact in fp32.
    """
    if blocks.shape[-1] % Q8_0_BYTES:
        raise ValueError(f"rows of {blocks.shape[-1]} bytes are no whole Q8_0 blocks of {Q8_0_BYTES}")
    check(x, blocks, torch.uint8, blocks.shape[-1] // Q8_0_BYTES * Q8_0_VALUES)
    found = _usable(x, blocks)
    return fallback.linear_q8_0(x, blocks) if found is None else _run(found, _Q8_0, x, blocks)


def check(x: Tensor, weight: Tensor, dtype: torch.dtype, k: int, scale: Tensor | None = None) -> None:
    """The library trusts these sizes, and wrong ones would read foreign memory: no asserts, which -O removes."""
    if weight.dtype != dtype or weight.dim() != 2:
        raise ValueError(f"the weight is {weight.dtype} {tuple(weight.shape)}, not a matrix of {dtype}")
    if not x.is_floating_point() or x.shape[-1] != k:
        raise ValueError(f"the activations are {x.dtype} and end in {x.shape[-1]}; the weight takes {k}")
    if scale is not None and (scale.dtype != torch.float32 or scale.shape != (weight.shape[0], 1)):
        raise ValueError(f"the scale is {scale.dtype} {tuple(scale.shape)}, not one float32 a row")


def _usable(x: Tensor, weight: Tensor) -> Kernels | None:
    on_cpu = x.device.type == "cpu" and weight.device.type == "cpu"
    return kernels() if on_cpu and x.numel() and weight.numel() else None


def _run(
    found: Kernels,
    format: int,
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    quantise: bool = False,
    bound: float = _UNBOUNDED,
) -> Tensor:
    if x.dtype not in TYPES:
        return _run(found, format, x.float(), weight, scale, quantise=quantise, bound=bound).to(x.dtype)
    n, k = weight.shape[0], x.shape[-1]
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    scale = scale if scale is None else scale.contiguous()
    out = torch.empty((*x.shape[:-1], n), dtype=x.dtype)
    failed = found.library.herd_linear(
        *(found.level, format, found.threads),
        *(rows.shape[0], n, k),
        *(rows.data_ptr(), TYPES[x.dtype], rows.stride(0)),
        *(weight.data_ptr(), weight.stride(0) * weight.element_size(), None if scale is None else scale.data_ptr()),
        *(quantise, bound, out.data_ptr()),
    )
    if failed:
        raise MemoryError(f"no memory to multiply {rows.shape[0]} rows by a matrix of {n} x {k}")
    return out
