"""The same products in torch: for machines without the compiled library, and for other devices.

On the CPU torch's own cast of float8 reads 0.3 GB/s a core. A shift puts an e4m3 code into the fields of a
half-precision number, exact but for a factor of 2^-8; tiles of rows stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from herd.kernels.e4m3 import quantize_rows
from herd.kernels.reference import dequantize_q8_0

_TILE = 1 << 17  # values that are widened at a time: 512 kB in fp32 (larger ones cost pages, six times slower)
_FACTOR = 256.0
_NAN_CODE = 0x7F


def widen_fp8(weight: Tensor) -> Tensor:
    """fp32 values of e4m3 [N, K], NaN too."""
    if weight.device.type != "cpu":  # torch's own cast is fast there, and to look for NaN would make a GPU wait
        return weight.to(torch.float32)
    code = weight.view(torch.int8)
    wide = (code.to(torch.int16) << 7).bitwise_and_(-0x4001).view(torch.float16).to(torch.float32).mul_(_FACTOR)
    magnitude = code & _NAN_CODE
    if weight.numel() and int(magnitude.max()) == _NAN_CODE:
        wide.masked_fill_(magnitude == _NAN_CODE, torch.nan)
    return wide


def linear_fp8(x: Tensor, weight: Tensor, scale: Tensor, bound: float | None, weight_only: bool) -> Tensor:
    if weight_only:
        return _tiled(x.float(), weight, widen_fp8).mul_(scale.squeeze(1)).to(x.dtype)
    values, x_scale = quantize_rows(x, bound)
    return _tiled(values.float(), weight, widen_fp8).mul_(x_scale).mul_(scale.squeeze(1)).to(x.dtype)


def linear_bf16(x: Tensor, weight: Tensor) -> Tensor:
    return _tiled(x.float(), weight, Tensor.float).to(x.dtype)


def linear_f32(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x.float(), weight).to(x.dtype)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return _tiled(x.float(), weight, Tensor.float).mul_(scale.squeeze(1)).to(x.dtype)


def linear_q8_0(x: Tensor, blocks: Tensor) -> Tensor:
    return _tiled(x.float(), blocks, dequantize_q8_0).to(x.dtype)


def _tiled(x: Tensor, weight: Tensor, widen: Callable[[Tensor], Tensor]) -> Tensor:
    """fp32 x W^T, widening a tile of W's rows at a time."""
    if x.device.type != "cpu":
        return F.linear(x, widen(weight))
    height = max(1, _TILE // max(1, weight.shape[1]))
    parts = [F.linear(x, widen(tile)) for tile in torch.split(weight, height)]
    return torch.cat(parts, dim=-1)
