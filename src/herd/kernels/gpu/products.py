"""x W^T for e4m3 weights on a CUDA device, with the values of `reference.linear_fp8` up to the order of the sum.

    linear_fp8(x, weight, scale, bound)                   few rows: Triton reads the codes once, at the speed of memory
                                                          many rows: torch._scaled_mm with a scale a row, where it can
    linear_fp8(x, weight, scale, None, weight_only=True)  x as it is

Sums of `_scaled_mm` are asked for in fp32 (no fast accumulation). A row's result does not depend on the other rows
within either way, and differs between the two in the order of its sum.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from herd.kernels.gpu import code, launching_on

FEW_ROWS = 32  # above, the matrix units are what is waited for
_BLOCK_M, _BLOCK_N, _BLOCK_K = 16, 64, 128
_PROGRAMS = 256  # that keep a large device busy; few columns are cut along K until there are so many
_FACTOR = 256.0  # `code.widen` gives value / 256


def linear_fp8(x: Tensor, weight: Tensor, scale: Tensor, bound: float | None, weight_only: bool = False) -> Tensor:
    """x [..., K] by e4m3 [N, K] with an fp32 scale a row [N, 1] -> [..., N] in x's dtype; shapes were checked."""
    rows_MK = x.reshape(-1, x.shape[-1])
    if rows_MK.shape[0] == 0 or weight.shape[0] == 0:
        return x.new_empty(*x.shape[:-1], weight.shape[0])
    if weight_only:
        found = matmul(rows_MK, weight).mul_(_FACTOR)
    else:
        codes_MK, x_scale = quantize_rows(rows_MK, bound)
        if rows_MK.shape[0] > FEW_ROWS and x.dtype == torch.bfloat16 and _has_scaled_mm(x.device, *weight.shape):
            made = torch._scaled_mm(codes_MK, weight.t(), x_scale, scale.t(), out_dtype=x.dtype, use_fast_accum=False)
            return made.view(*x.shape[:-1], weight.shape[0])
        found = matmul(codes_MK, weight).mul_(x_scale * _FACTOR**2)
    return found.mul_(scale.squeeze(1)).to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def quantize_rows(x: Tensor, bound: float | None = None) -> tuple[Tensor, Tensor]:
    """`e4m3.quantize_rows` in one kernel: values [M, K] in e4m3 and scales [M, 1]; the same bits."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    codes_MK = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    scale_M1 = torch.empty(x.shape[0], 1, dtype=torch.float32, device=x.device)
    largest = float("inf") if bound is None else bound
    with launching_on(x.device):
        code.quantize_rows_kernel[(x.shape[0],)](x, codes_MK, scale_M1, largest, x.shape[1], x.stride(0), BLOCK=1024)
    return codes_MK.view(torch.float8_e4m3fn), scale_M1


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """fp32 sums of x [M, K] by codes [N, K] without scales, each e4m3 counted as value / 256."""
    of_codes = x.dtype == torch.float8_e4m3fn
    x = x.view(torch.uint8) if of_codes else x
    x, weight = (each if each.stride(1) == 1 else each.contiguous() for each in (x, weight))
    (m, k), n = x.shape, weight.shape[0]
    splits, part = _splits(n, k)
    out = torch.empty(splits, m, n, dtype=torch.float32, device=x.device)
    grid = (-(-m // _BLOCK_M), -(-n // _BLOCK_N), splits)
    sizes = (m, n, k, x.stride(0), weight.stride(0), part)
    blocks = {"BLOCK_M": _BLOCK_M, "BLOCK_N": _BLOCK_N, "BLOCK_K": _BLOCK_K}
    with launching_on(x.device):
        code.matmul_kernel[grid](x, weight.view(torch.uint8), out, *sizes, CODES=of_codes, **blocks)
    return out[0] if splits == 1 else out.sum(0)


def _splits(n: int, k: int) -> tuple[int, int]:
    """Into how many parts K is cut, and how long each is; by the weight's shape alone, never by the rows."""
    wanted = max(1, _PROGRAMS // -(-n // _BLOCK_N))
    part = max(4 * _BLOCK_K, -(-k // (wanted * _BLOCK_K)) * _BLOCK_K)
    return -(-k // part), part


@cache
def _has_scaled_mm(device: torch.device, n: int, k: int) -> bool:
    """Whether torch multiplies e4m3 with a scale a row there: sm89 and later, in steps of 16."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9) and n % 16 == k % 16 == 0
