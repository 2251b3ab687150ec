"""Layers whose weights stay in GGUF's Q8_0 blocks: a little over half the memory of BF16, and mapped.

A block is 32 neighbours of a row: one fp16 scale, then 32 signed bytes, 34 bytes together (ggml's docs/gguf.md). A
value is scale * byte. Widened to fp32, as other formats get them, the matrices of an 8B model would take 32 GB.
Like `fp8.py` it takes the place of a layer of a built `Llama`. Weights only: activations are not rounded, while
llama.cpp rounds them to eight bits too. Not here: writing blocks (the gguf library does), training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herd.kernels import linear_q8_0
from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES, dequantize_q8_0


class Q8Linear(nn.Module):
    """Stands where an nn.Linear without bias stood; `weight` is uint8 [out, in / 32 * 34]."""

    weight: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer(
            "weight", torch.empty(out_features, in_features // Q8_0_VALUES * Q8_0_BYTES, dtype=torch.uint8)
        )

    def forward(self, x: Tensor) -> Tensor:
        return linear_q8_0(x, self.weight)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Q8Embedding(nn.Module):
    """Stands where the embedding stood: the rows that are looked up are widened, to `dtype`."""

    weight: Tensor

    def __init__(self, vocab_size: int, dim: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", torch.empty(vocab_size, dim // Q8_0_VALUES * Q8_0_BYTES, dtype=torch.uint8))

    def forward(self, tokens: Tensor) -> Tensor:
        return dequantize_q8_0(self.weight[tokens.flatten()]).to(self.dtype).view(*tokens.shape, -1)
