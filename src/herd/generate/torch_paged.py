"""Attention over pages in torch, by copies of the pages that are looked at: for GPUs, and where nothing is compiled.

Where the kernels of `kernels/gpu/` work nothing is copied: they do single tokens, unless of sequences that share a long
beginning, and parts of prompts that begin behind others or whose keys are read out of an FP8 cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from herd.generate.paged_cache import PagedCache
from herd.generate.torch_work import Decoding, InPlace, Prompt
from herd.llama import fused
from herd.llama.attention import Attention, Layout, attend, attend_one

_SCORES = 2**22  # of a chunk of a prompt at once: a mask of that many places, and what attention makes of it


class TorchPagedAttention(nn.Module):
    """`Attention` with its own matrices, over the pages of `cache` instead of a dense one."""

    def __init__(self, plain: Attention, cache: PagedCache) -> None:
        super().__init__()
        self.plain, self._cache = plain, cache

    def forward(self, x_1ND: Tensor, layout: Layout) -> Tensor:
        plain, cache, work = self.plain, self._cache, self._cache.work
        assert work is not None, "nobody told what these tokens are"
        q_1NHK = plain.q_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        k_1NGK = plain.k_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        v_1NGK = plain.v_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        q_1NHK = fused.rotate(q_1NHK, layout.cos, layout.sin)
        k_1NGK = fused.rotate(k_1NGK, layout.cos, layout.sin)
        cache.write(plain.layer, k_1NGK[0], v_1NGK[0], work)
        mixed_1NHK = torch.empty_like(q_1NHK)
        for part in work.parts:
            if isinstance(part, Decoding):
                mixed_1NHK[0, part.rows] = _decode(q_1NHK[0, part.rows, None], part, cache, plain.layer)[:, 0]
            elif isinstance(part, InPlace):
                mixed_1NHK[0, part.rows] = _in_place(q_1NHK[0, part.rows], part, cache, plain.layer)
            elif part.start == 0 and cache.exact:
                q, k, v = (x[:, part.rows] for x in (q_1NHK, k_1NGK, v_1NGK))
                mixed_1NHK[:, part.rows] = attend(q, k, v, Layout(layout.cos, layout.sin))
            else:
                mixed_1NHK[:, part.rows] = _continue(q_1NHK[:, part.rows], part, cache, plain.layer, layout)
        out_1ND: Tensor = plain.o_proj(mixed_1NHK.flatten(2))
        return out_1ND


def _decode(q_B1HK: Tensor, part: Decoding, cache: PagedCache, layer: int) -> Tensor:
    own = cache.read(layer, part.places_BGP, q_B1HK.dtype)
    if part.shared_1GP is None:
        return attend_one(q_B1HK, *own, part.mask_B11S)
    return attend_shared(q_B1HK, cache.read(layer, part.shared_1GP, q_B1HK.dtype), own, part.mask_B11S)


def _in_place(q_NHK: Tensor, part: InPlace, cache: PagedCache, layer: int) -> Tensor:
    from herd.kernels.gpu import attention  # imports Triton

    pages, tables_SP = cache.layers[layer], part.tables_SP
    if len(q_NHK) > len(tables_SP):
        return attention.prompt_attention(q_NHK, pages, tables_SP[0], part.positions_N)
    return attention.paged_attention(q_NHK, pages, tables_SP, part.sequence_N, part.positions_N)


def attend_shared(
    q_B1HK: Tensor, shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], mask_B11S: Tensor
) -> Tensor:
    """One new token a row, over keys and values [1, P, G, K] that all rows begin with and [B, S, G, K] of their own.

    The queries of all rows become rows of one product with the shared keys: those are read once, not once a row.
    """
    (k_1PGK, v_1PGK), (k_BSGK, v_BSGK) = shared, own
    B, _, H, K = q_B1HK.shape
    P, G = k_1PGK.shape[1:3]
    q_BGRK = q_B1HK.reshape(B, G, H // G, K)
    q_GNK = q_BGRK.transpose(0, 1).reshape(G, -1, K)  # N is B * R here
    scores_GNP = torch.matmul(q_GNK, k_1PGK[0].permute(1, 2, 0))
    scores_BGRP = scores_GNP.view(G, B, H // G, P).transpose(0, 1)
    scores_BGRS = torch.matmul(q_BGRK, k_BSGK.permute(0, 2, 3, 1)).masked_fill_(~mask_B11S, -torch.inf)
    weights = torch.cat([scores_BGRP, scores_BGRS], dim=-1).mul_(K**-0.5).softmax(-1, dtype=torch.float32)
    weights = weights.to(v_BSGK.dtype)
    weights_GNP = weights[..., :P].transpose(0, 1).reshape(G, -1, P)
    mixed_BGRK = torch.matmul(weights_GNP, v_1PGK[0].transpose(0, 1)).view(G, B, H // G, K).transpose(0, 1)
    mixed_BGRK = mixed_BGRK + torch.matmul(weights[..., P:], v_BSGK.transpose(1, 2))
    return mixed_BGRK.reshape(B, 1, H, K)


def _continue(q_1THK: Tensor, part: Prompt, cache: PagedCache, layer: int, layout: Layout) -> Tensor:
    """Attention of a later part of a prompt, a few queries at a time: their scores must not fill the memory."""
    k_1SGK, v_1SGK = cache.read(layer, part.places_1GP, q_1THK.dtype)
    length = q_1THK.shape[1]
    at_once = max(1, _SCORES // (part.start + length))
    mixed = []
    for first in range(0, length, at_once):
        queries_T = torch.arange(first, min(first + at_once, length), device=q_1THK.device) + part.start
        stop = part.start + min(first + at_once, length)
        mask_TS = torch.arange(stop, device=q_1THK.device) <= queries_T[:, None]
        only = Layout(layout.cos, layout.sin, mask=mask_TS[None, None])
        mixed.append(attend(q_1THK[:, first : first + at_once], k_1SGK[:, :stop], v_1SGK[:, :stop], only))
    return torch.cat(mixed, dim=1)
