"""The hot paths said plainly, for reading and for the equality tests. Plain autograd, every intermediate kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As Meta's `RMSNorm`: in fp32, cast back, then times the weight."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return normed.to(x.dtype) * weight


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def rotate(x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (i, i + K/2) turned by their angle."""
    first, second = x_BTHK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, mask: Tensor) -> Tensor:
    """All scores at once; `mask` is True where a query may look and broadcasts to [B, H, T, S]."""
    shared = q_BTHK.shape[2] // k_BTGK.shape[2]
    k_BSHK, v_BSHK = (x.repeat_interleave(shared, dim=2) for x in (k_BTGK, v_BTGK))
    scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / q_BTHK.shape[-1] ** 0.5
    weights_BHTS = scores_BHTS.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK)


def cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """All logits at once."""
    losses_N = F.cross_entropy(hidden_ND @ weight_VD.t(), targets_N, reduction="none")
    return (losses_N if weights_N is None else losses_N * weights_N).sum()


def token_logprobs(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    logprobs_NV = torch.log_softmax(hidden_ND @ weight_VD.t(), dim=-1)
    return logprobs_NV.gather(1, targets_N[:, None]).squeeze(1)
