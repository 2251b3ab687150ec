"""Grouped-query attention with rotary positions: H query heads share G key/value heads (paper section 3.2).

Three cases, told apart once per forward pass by `Layout`: plain causal, causal within documents of a packed row, and
over a cache. All go through torch's scaled dot product, so the softmax is fp32 and scores are never kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from herd.llama import fused
from herd.llama.cache import KVCache
from herd.llama.config import LlamaConfig


class Linear(nn.Linear):
    """A matrix without bias whose birth draws no random numbers: `init_weights` or a checkpoint fills it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        pass


@dataclass(frozen=True)
class Layout:
    """What every layer of one forward pass needs to know about where its tokens stand."""

    cos: Tensor  # [B or 1, T, 1, K/2] in the dtype of the network
    sin: Tensor
    mask: Tensor | None = None  # True where a query may look: [B, 1, T, S]; None means plain causal
    cache: KVCache | None = None
    positions_BT: Tensor | None = None  # where to write in the cache
    slots: int = 0  # how many slots of the cache to look at; 0: the cache was empty, look at the new tokens


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.q_proj = Linear(config.dim, config.dim)
        self.k_proj = Linear(config.dim, config.kv_dim)
        self.v_proj = Linear(config.dim, config.kv_dim)
        self.o_proj = Linear(config.dim, config.dim)

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        q_BTHK = self.q_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        k_BTGK = self.k_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        v_BTGK = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        q_BTHK = fused.rotate(q_BTHK, layout.cos, layout.sin)
        k_BTGK = fused.rotate(k_BTGK, layout.cos, layout.sin)
        q_BHTK, k_BGSK, v_BGSK = q_BTHK.transpose(1, 2), k_BTGK.transpose(1, 2), v_BTGK.transpose(1, 2)
        if layout.cache is not None and layout.positions_BT is not None:
            layout.cache.write(self.layer, k_BTGK, v_BTGK, layout.positions_BT)
            if layout.slots:
                k_BGSK = layout.cache.keys[self.layer][:, :, : layout.slots]
                v_BGSK = layout.cache.values[self.layer][:, :, : layout.slots]
        mixed_BHTK = attend(q_BHTK, k_BGSK, v_BGSK, layout.mask)
        out_BTD: Tensor = self.o_proj(mixed_BHTK.transpose(1, 2).flatten(2))
        return out_BTD


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k / sqrt(K)) v for each head, [B, H, T, K]; plain causal without a mask."""
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )


def document_mask(document_ids_BT: Tensor) -> Tensor:
    """True where query t may look at key s: not later, and of the same document; [B, 1, T, T]."""
    length = document_ids_BT.shape[1]
    same = document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=same.device).tril()
