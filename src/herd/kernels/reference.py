"""What each product is, in the plainest way: the whole matrix in fp32, then one matrix product. For the tests, but for
what Q8_0 blocks are, which all who read them ask here."""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels.e4m3 import quantize_rows

Q8_0_VALUES, Q8_0_BYTES = 32, 34  # of one block: an fp16 scale, then int8 values


def linear_fp8(
    x: Tensor, weight: Tensor, scale: Tensor, *, bound: float | None = None, weight_only: bool = False
) -> Tensor:
    if weight_only:
        return (x.float() @ weight.float().T * scale.squeeze(1)).to(x.dtype)
    values, x_scale = quantize_rows(x, bound)
    return (values.float() @ weight.float().T * x_scale * scale.squeeze(1)).to(x.dtype)


def linear_bf16(x: Tensor, weight: Tensor) -> Tensor:
    return (x.float() @ weight.float().T).to(x.dtype)


def linear_f32(x: Tensor, weight: Tensor) -> Tensor:
    return (x.float() @ weight.T).to(x.dtype)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return (x.float() @ weight.float().T * scale.squeeze(1)).to(x.dtype)


def linear_q8_0(x: Tensor, blocks: Tensor) -> Tensor:
    return (x.float() @ dequantize_q8_0(blocks).T).to(x.dtype)


def dequantize_q8_0(blocks: Tensor) -> Tensor:
    """fp32 [N, K] of uint8 blocks [N, K / 32 * 34]; every scale times an int8 is exact in fp32."""
    parts = blocks.reshape(blocks.shape[0], -1, Q8_0_BYTES)
    scale = parts[..., :2].contiguous().view(torch.float16).float()
    return (parts[..., 2:].contiguous().view(torch.int8).float() * scale).flatten(1)
