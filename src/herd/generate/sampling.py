"""From logits to tokens, a batch at a time, each row with its own settings and its own randomness.

One uniform number decides each token, and it is a hash of the request's seed and the step: no generator is shared,
so a request gives the same tokens alone and in any batch (as far as the logits are the same).
The top-p rule is that of Meta's reference generation.py.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.errors import ArtifactError

Floats = NDArray[np.float32]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: SplitMix64's step (Steele et al. 2014)
_LIKELIEST = 64  # as many tokens hold the nucleus of nearly every step; a row that needs more is sorted whole


def uniforms(seeds_B: NDArray[np.uint64], steps_B: NDArray[np.int64]) -> Floats:
    """One number in [0, 1) for each (seed, step): SplitMix64, its start hashed from the seed; 24 bits."""
    with np.errstate(over="ignore"):
        start = _mix(seeds_B + np.uint64(_GOLDEN))
        bits = _mix(start + (steps_B.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
    return ((bits >> np.uint64(40)).astype(np.float64) * 2.0**-24).astype(np.float32)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample(logits_BV: Tensor, temperature_B: Floats, top_p_B: Floats, uniforms_B: Floats) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] under the untempered, untruncated model.

    logits_BV: float32, ArtifactError if they are not finite (minus infinity may stand for an impossible token).
    uniforms_B: what decides each row, in [0, 1); greedy rows do not look at it.
    """
    top_B1 = logits_BV.amax(dim=1, keepdim=True)
    weights_BV = (logits_BV - top_B1).exp_()  # probabilities but for a factor, the likeliest has 1
    total_B1 = weights_BV.sum(dim=1, keepdim=True)
    if not torch.isfinite(total_B1).all():
        raise ArtifactError(
            "the model's logits are not finite numbers",
            where="sampling",
            mend="its weights are damaged or diverged in training; take an earlier checkpoint",
        )
    if not temperature_B.any():
        tokens_B = logits_BV.argmax(dim=1)
    else:
        tokens_B = _draw(logits_BV, top_B1, weights_BV, temperature_B, top_p_B, uniforms_B)
    chosen_B1 = logits_BV.gather(1, tokens_B[:, None])
    logprobs_B = (chosen_B1 - top_B1 - total_B1.log()).squeeze(1)
    return tokens_B, logprobs_B


def _draw(
    logits_BV: Tensor,
    top_B1: Tensor,
    weights_BV: Tensor,
    temperature_B: Floats,
    top_p_B: Floats,
    uniforms_B: Floats,
) -> Tensor:
    device = logits_BV.device
    if (temperature_B != 1).any():
        warmth_B1 = torch.from_numpy(np.where(temperature_B > 0, temperature_B, 1)).to(device)[:, None]
        weights_BV = (logits_BV - top_B1).div_(warmth_B1).exp_()
    chance_B1 = torch.from_numpy(uniforms_B).to(device)[:, None]
    narrow = np.flatnonzero(top_p_B < 1)
    if len(narrow) < len(top_p_B):
        tokens_B = inverse_cdf(weights_BV, chance_B1)
    else:
        tokens_B = torch.empty(len(top_p_B), dtype=torch.int64, device=device)
    if len(narrow):  # these alone: the order of the sum decides which token a number falls on, for each row the same
        rows = torch.from_numpy(narrow).to(device)
        top_p_R1 = torch.from_numpy(top_p_B[narrow]).to(device)[:, None]
        tokens_B[rows] = _draw_nucleus(weights_BV[rows], top_p_R1, chance_B1[rows])
    if not temperature_B.all():
        greedy_B = torch.from_numpy(temperature_B == 0).to(device)
        tokens_B = torch.where(greedy_B, logits_BV.argmax(dim=1), tokens_B)
    return tokens_B


def inverse_cdf(weights_BV: Tensor, chance_B1: Tensor) -> Tensor:
    """The column [B] in which `chance` of each row's total weight falls; a column of weight 0 is never it."""
    cumulative_BV = weights_BV.cumsum(dim=1)
    found_B1 = torch.searchsorted(cumulative_BV, chance_B1 * cumulative_BV[:, -1:], right=True)
    return found_B1.squeeze(1).clamp_(max=weights_BV.shape[1] - 1)


def _draw_nucleus(weights_BV: Tensor, top_p_B1: Tensor, chance_B1: Tensor) -> Tensor:
    """Draw from each row's nucleus, looking at the likeliest tokens first and at all where they do not suffice."""
    mass_B1 = top_p_B1 * weights_BV.sum(dim=1, keepdim=True)
    n_likeliest = min(_LIKELIEST, weights_BV.shape[1])
    sorted_BK, ids_BK = weights_BV.topk(n_likeliest, dim=1)
    tokens_B = _draw_sorted(sorted_BK, ids_BK, mass_B1, chance_B1)
    unsure_B = (sorted_BK.sum(dim=1, keepdim=True) <= mass_B1).squeeze(1)
    if n_likeliest < weights_BV.shape[1] and unsure_B.any():
        rows = unsure_B.nonzero().squeeze(1)
        sorted_RV, ids_RV = weights_BV[rows].sort(dim=1, descending=True, stable=True)
        tokens_B[rows] = _draw_sorted(sorted_RV, ids_RV, mass_B1[rows], chance_B1[rows])
    return tokens_B


def _draw_sorted(sorted_BK: Tensor, ids_BK: Tensor, mass_B1: Tensor, chance_B1: Tensor) -> Tensor:
    """Drop a token when the mass before it exceeds `mass`; draw from the rest."""
    before_BK = sorted_BK.cumsum(dim=1) - sorted_BK
    kept_BK = sorted_BK.masked_fill(before_BK > mass_B1, 0.0)
    return ids_BK.gather(1, inverse_cdf(kept_BK, chance_B1)[:, None]).squeeze(1)
