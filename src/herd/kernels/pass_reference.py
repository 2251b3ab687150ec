"""Attention over pages in the plainest way: query by query, all scores at once. For the tests."""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels.attention import PageTensors
from herd.kernels.attention_plan import Sequence


def widened(values: Tensor, scale: Tensor | None) -> Tensor:
    """fp32 keys or values [pages, G, page, K]."""
    return values.float() if scale is None else values.float() * scale[..., None]


def paged_attention(q_NHK: Tensor, pages: PageTensors, sequences: list[Sequence]) -> Tensor:
    keys, values = widened(pages.keys, pages.key_scale), widened(pages.values, pages.value_scale)
    shared = q_NHK.shape[1] // keys.shape[1]
    mixed, token = [], 0
    for sequence in sequences:
        k_GSK, v_GSK = (x[list(sequence.pages)].transpose(0, 1).flatten(1, 2) for x in (keys, values))
        k_HSK, v_HSK = (x.repeat_interleave(shared, dim=0) for x in (k_GSK, v_GSK))
        for position in range(sequence.start, sequence.stop):
            q_HK = q_NHK[token].float()
            scores_HS = torch.einsum("hk,hsk->hs", q_HK, k_HSK[:, : position + 1]) * q_HK.shape[-1] ** -0.5
            mixed.append(torch.einsum("hs,hsk->hk", scores_HS.softmax(-1), v_HSK[:, : position + 1]))
            token += 1
    return torch.stack(mixed).to(q_NHK.dtype)
