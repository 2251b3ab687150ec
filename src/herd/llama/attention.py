"""Grouped-query attention with rotary positions: H query heads share G key/value heads (paper section 3.2).

Three cases, told apart once per forward pass by `Layout`: plain causal, causal within the documents of packed rows,
and over a cache. Scores are never kept, and softmax is fp32 inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from herd.llama import fused
from herd.llama.blocked import Span, blocked_attention
from herd.llama.cache import KVCache
from herd.llama.config import LlamaConfig
from herd.llama.remade import remade

# Without matrix tiles a CPU's bfloat16 attention takes 2.2 times as long as the float32 one, casts included.
_SLOW_BFLOAT16 = not torch.cpu._is_amx_tile_supported()


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
    mask: Tensor | None = None  # True where a query may look, or its bias: [B, 1, T, S]; plain causal without both
    spans: list[Span] | None = None  # for the CPU: the documents of packed rows, or short rows in training
    starts_BT: Tensor | None = None  # where the document of each token begins, if rows are packed
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
        if layout.cache is not None and layout.positions_BT is not None:
            layout.cache.write(self.layer, k_BTGK, v_BTGK, layout.positions_BT)
            if layout.slots:
                k_BTGK, v_BTGK = layout.cache.read(self.layer, layout.slots)
        mixed_BTHK = self.mix(q_BTHK, k_BTGK, v_BTGK, layout)
        out_BTD: Tensor = self.o_proj(mixed_BTHK.flatten(2))
        return out_BTD

    def mix(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, layout: Layout) -> Tensor:
        """What the queries find, [B, T, H, K]; for those who look for keys elsewhere than here."""
        return attend(q_BTHK, k_BSGK, v_BSGK, layout)


def attend(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, layout: Layout) -> Tensor:
    """softmax(q k / sqrt(K)) v for each head, [B, T, H, K]."""
    if _SLOW_BFLOAT16 and layout.cache is None and q_BTHK.dtype == torch.bfloat16 and q_BTHK.device.type == "cpu":
        wide_BTHK = attend(q_BTHK.float(), k_BSGK.float(), v_BSGK.float(), layout)
        return wide_BTHK.to(torch.bfloat16)
    if layout.spans is not None:
        return blocked_attention(q_BTHK, k_BSGK, v_BSGK, layout.spans)
    if layout.slots and layout.mask is not None and q_BTHK.shape[1] == 1:
        return attend_one(q_BTHK, k_BSGK, v_BSGK, layout.mask)
    if layout.mask is not None and q_BTHK.device.type != "cpu" and q_BTHK.shape[2] != k_BSGK.shape[2]:
        k_BSGK, v_BSGK = for_all_heads(torch.stack([k_BSGK, v_BSGK], 2), q_BTHK.shape[2]).unbind(2)
    mixed_BHTK = F.scaled_dot_product_attention(
        q_BTHK.transpose(1, 2),
        k_BSGK.transpose(1, 2),
        v_BSGK.transpose(1, 2),
        attn_mask=layout.mask,
        is_causal=layout.mask is None,
        enable_gqa=q_BTHK.shape[2] != k_BSGK.shape[2],
    )
    return mixed_BHTK.transpose(1, 2)


def for_all_heads(both_BS2GK: Tensor, heads: int) -> Tensor:
    """Keys and values repeated for the query heads that share them: of torch's GPU kernels that keep no scores none
    takes both a mask and fewer key heads than query heads."""
    return remade(torch.repeat_interleave, both_BS2GK, heads // both_BS2GK.shape[3], 3)


def attend_one(q_B1HK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, mask_B11S: Tensor) -> Tensor:
    """Decoding: one new token a row. The heads of a group become rows of one product with their keys.

    On the CPU a fifth faster than torch's kernel, which walks through every query head by itself.
    """
    B, _, H, K = q_B1HK.shape
    G = k_BSGK.shape[2]
    q_BGRK = q_B1HK.reshape(B, G, H // G, K)  # R query heads share a key head
    scores_BGRS = torch.matmul(q_BGRK, k_BSGK.permute(0, 2, 3, 1)).mul_(K**-0.5)
    weights_BGRS = scores_BGRS.masked_fill_(~mask_B11S, -torch.inf).softmax(-1, dtype=torch.float32)
    mixed_BGRK = torch.matmul(weights_BGRS.to(v_BSGK.dtype), v_BSGK.transpose(1, 2))
    return mixed_BGRK.reshape(B, 1, H, K)


def document_mask(starts_BT: Tensor) -> Tensor:
    """True where query t may look at key s, no later than t and no earlier than its document; [B, 1, T, T]."""
    keys_T = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    return ((keys_T >= starts_BT[..., None]) & (keys_T <= keys_T[:, None]))[:, None]


def bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores. torch's GPU kernels take both, but make and keep one of these in every layer
    that is given True and False."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
