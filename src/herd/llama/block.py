"""One layer: attention and SwiGLU, each behind an RMSNorm and added to the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herd.llama import fused
from herd.llama.attention import Attention, Layout, Linear
from herd.llama.config import LlamaConfig


class RMSNorm(nn.Module):
    """x over its root mean square, in fp32, cast back, times a learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return fused.rms_norm(x, self.weight, self.eps)


class FeedForward(nn.Module):
    """down( silu(gate x) * up x ): SwiGLU. Meta calls the three matrices w1, w3 and w2."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.ffn_dim)
        self.up_proj = Linear(config.dim, config.ffn_dim)
        self.down_proj = Linear(config.ffn_dim, config.dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.down_proj(fused.swiglu(self.gate_proj(x_BTD), self.up_proj(x_BTD)))
        return out_BTD


class Block(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), layout)
        out_BTD: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out_BTD
