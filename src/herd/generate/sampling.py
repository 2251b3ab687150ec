"""From logits to tokens, a batch at a time, each row with its own settings and its own randomness.

One uniform number decides each token, and it is a hash of the request's seed and the step: no generator is shared,
so a request gives the same tokens alone and in any batch (as far as the logits are the same).
The top-p rule is that of Meta's reference generation.py. Temperature comes first, then top-k, top-p over what top-k
left, and min-p, as in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.errors import ArtifactError
from herd.generate.protocol import Alternatives
from herd.kernels.fused import summary
from herd.kernels.library import kernels
from herd.llama.loss import CHUNK

Floats = NDArray[np.float32]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: SplitMix64's step (Steele et al. 2014)


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


@dataclass(frozen=True)
class Chances:
    """What decides the tokens of B rows, one number a row of each; greedy rows look at none of the others."""

    temperature_B: Floats
    top_p_B: Floats
    uniforms_B: Floats  # in [0, 1)
    top_k_B: NDArray[np.int64] | None = None  # 0 keeps all; None: so do all rows
    min_p_B: Floats | None = None


def sample(logits_BV: Tensor, chances: Chances, edited: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] under the unedited, untempered, untruncated model.

    logits_BV: float32, ArtifactError if they are not finite (minus infinity may stand for an impossible token).
    edited: rows [R] whose token is drawn from other logits [R, V] instead (`herd.generate.edits`).
    """
    summed = _summed(logits_BV)
    drawn_BV = logits_BV
    if edited is not None:
        rows_R, logits_RV = edited
        drawn_BV = logits_BV.index_copy(0, rows_R, logits_RV)
    if not chances.temperature_B.any():
        tokens_B = drawn_BV.argmax(dim=1) if summed is None or edited is not None else summed.likeliest_B
    else:
        top_B1 = drawn_BV.amax(dim=1, keepdim=True)
        weights_BV = (drawn_BV - top_B1).exp_()  # probabilities but for a factor, the likeliest has 1
        tokens_B = _draw(drawn_BV, top_B1, weights_BV, chances)
    logprobs_B = _logprobs(logits_BV, tokens_B[:, None], summed).squeeze(1)
    if logprobs_B.isnan().any():
        raise ArtifactError(
            "the model's logits are not finite numbers",
            where="sampling",
            mend="its weights are damaged or diverged in training; take an earlier checkpoint",
        )
    return tokens_B, logprobs_B


def logprobs_of(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    """The log-probability of a token of each row. NaN if any logit of the row is NaN or plus infinity.

    A row is summed in an order of its own, whatever stands beside it.
    """
    return _logprobs(logits_BV, tokens_B[:, None], _summed(logits_BV)).squeeze(1)


class _Summed(NamedTuple):
    """Of each row: its largest logit, the logarithm of its sum relative to that one, and the likeliest token."""

    top_B: Tensor  # float64
    log_total_B: Tensor  # float64
    likeliest_B: Tensor


def _summed(logits_BV: Tensor) -> _Summed | None:
    """By the compiled library, in one walk over the logits; None where it does not work."""
    if logits_BV.device.type != "cpu" or kernels() is None:
        return None
    top_B, total_B, likeliest_B = summary(logits_BV)
    logs = [math.log(total) if total > 0 else math.nan for total in total_B.tolist()]  # torch's differ by the place
    return _Summed(top_B.double(), torch.tensor(logs, dtype=torch.float64), likeliest_B)


def _logprobs(logits_BV: Tensor, ids_BK: Tensor, summed: _Summed | None) -> Tensor:
    """Log-probabilities [B, K] of some ids of each row.

    Without the library by log_softmax, which sums a row in an order of its own: a plain sum of one long row is shared
    out to threads, that of many rows is not, and the last bit would tell them apart.
    """
    if summed is None:
        return torch.log_softmax(logits_BV, dim=1).gather(1, ids_BK)
    found_BK = logits_BV.gather(1, ids_BK).double()
    return (found_BK - summed.top_B[:, None] - summed.log_total_B[:, None]).float()


def _draw(logits_BV: Tensor, top_B1: Tensor, weights_BV: Tensor, chances: Chances) -> Tensor:
    device, temperature_B = logits_BV.device, chances.temperature_B
    chance_B1 = torch.from_numpy(chances.uniforms_B).to(device)[:, None]
    tokens_B = inverse_cdf(truncated(logits_BV, top_B1, weights_BV, chances), chance_B1)
    if not temperature_B.all():
        greedy_B = torch.from_numpy(temperature_B == 0).to(device)
        tokens_B = torch.where(greedy_B, logits_BV.argmax(dim=1), tokens_B)
    return tokens_B


def truncated(logits_BV: Tensor, top_B1: Tensor, weights_BV: Tensor, chances: Chances) -> Tensor:
    """What each token is drawn by [B, V], not normalised: tempered, then cut by top-k, top-p and min-p.

    weights_BV: exp(logits - top), which is written over.
    """
    device, temperature_B = logits_BV.device, chances.temperature_B
    if (temperature_B != 1).any():
        warmth_B1 = torch.from_numpy(np.where(temperature_B > 0, temperature_B, 1)).to(device)[:, None]
        weights_BV = (logits_BV - top_B1).div_(warmth_B1).exp_()
    if chances.top_k_B is not None:
        weights_BV = _on_rows(weights_BV, chances.top_k_B > 0, chances.top_k_B, likeliest)
    weights_BV = _on_rows(weights_BV, chances.top_p_B < 1, chances.top_p_B, nucleus)
    if chances.min_p_B is not None:
        weights_BV = _on_rows(weights_BV, chances.min_p_B > 0, chances.min_p_B, likely_enough)
    return weights_BV


def _on_rows(
    weights_BV: Tensor,
    concerned_B: NDArray[np.bool_],
    setting_B: NDArray[Any],
    rule: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The weights with those of the rows concerned replaced by `rule(weights, setting)`."""
    narrow = np.flatnonzero(concerned_B)
    device = weights_BV.device
    if len(narrow) == len(concerned_B):
        return rule(weights_BV, torch.from_numpy(setting_B).to(device)[:, None])
    if len(narrow):
        rows = torch.from_numpy(narrow).to(device)
        weights_BV[rows] = rule(weights_BV[rows], torch.from_numpy(setting_B[narrow]).to(device)[:, None])
    return weights_BV


def inverse_cdf(weights_BV: Tensor, chance_B1: Tensor) -> Tensor:
    """The column [B] in which `chance` of each row's total weight falls; a column of weight 0 is never it."""
    cumulative_BV = weights_BV.cumsum(dim=1)
    found_B1 = torch.searchsorted(cumulative_BV, chance_B1 * cumulative_BV[:, -1:], right=True)
    return found_B1.squeeze(1).clamp_(max=weights_BV.shape[1] - 1)


def nucleus(weights_RV: Tensor, top_p_R1: Tensor) -> Tensor:
    """The weights with 0 for every token that is dropped because the mass of the likelier ones exceeds top_p.

    Only values are sorted, not ids: numpy does that with vector instructions, 18 times faster on a CPU than
    torch's sort with indices (256 rows of 4,096: 3.7 ms and 64 ms on one core of a Xeon with AVX-512).
    """
    ascending_RV = _sort_values(weights_RV)
    cumulative_RV = ascending_RV.cumsum(dim=1)  # of a token and all less likely ones
    total_R1 = cumulative_RV[:, -1:]
    first_R1 = torch.searchsorted(cumulative_RV, total_R1 * (1 - top_p_R1))  # the least likely token that is kept
    floor_R1 = ascending_RV.gather(1, first_R1)
    tied_R1 = (first_R1 > 0) & (ascending_RV.gather(1, (first_R1 - 1).clamp_(min=0)) == floor_R1)
    return _keep(weights_RV, floor_R1, weights_RV.shape[1] - first_R1, tied_R1)


def likeliest(weights_RV: Tensor, top_k_R1: Tensor) -> Tensor:
    """The weights with 0 for every token but the `top_k` likeliest of each row."""
    wanted_R1 = top_k_R1.clamp(max=weights_RV.shape[1])
    n_sorted = min(int(wanted_R1.max()) + 1, weights_RV.shape[1])
    descending_RS = weights_RV.topk(n_sorted, dim=1).values
    floor_R1 = descending_RS.gather(1, wanted_R1 - 1)
    next_R1 = descending_RS.gather(1, wanted_R1.clamp(max=n_sorted - 1))
    return _keep(weights_RV, floor_R1, wanted_R1, (next_R1 == floor_R1) & (wanted_R1 < weights_RV.shape[1]))


def likely_enough(weights_RV: Tensor, min_p_R1: Tensor) -> Tensor:
    """The weights with 0 for every token less than `min_p` as likely as the likeliest (Nguyen et al. 2024)."""
    return weights_RV.masked_fill(weights_RV < min_p_R1 * weights_RV.amax(dim=1, keepdim=True), 0.0)


def alternatives(logits_RV: Tensor, count: int) -> list[Alternatives]:
    """The `count` likeliest ids of each row with their log-probabilities, the likeliest first."""
    ids = logits_RV.topk(min(count, logits_RV.shape[1]), dim=1).indices
    logprobs = _logprobs(logits_RV, ids, _summed(logits_RV))
    return [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), logprobs.tolist(), strict=True)]


def prompt_logprobs(
    logits_of: Callable[[Tensor], Tensor], hidden_TD: Tensor, targets: Sequence[int], n_top: int
) -> tuple[list[float], list[Alternatives]]:
    """The log-probability of each target after its hidden state, and the `n_top` likeliest ids there.

    Never more than `CHUNK` rows of logits are alive.
    """
    found: list[float] = []
    top: list[Alternatives] = []
    for start in range(0, len(targets), CHUNK):
        logits_CV = logits_of(hidden_TD[start : start + CHUNK])
        targets_C = torch.tensor(targets[start : start + CHUNK], device=logits_CV.device)
        found += logprobs_of(logits_CV, targets_C).tolist()
        top += alternatives(logits_CV, n_top) if n_top else []
    return found, top


def _keep(weights_RV: Tensor, floor_R1: Tensor, n_wanted_R1: Tensor, tied_R1: Tensor) -> Tensor:
    """The weights of the `n_wanted` likeliest tokens, 0 for the others; `floor` is the least weight among those.

    `tied` rows have more tokens of exactly that weight than belong there: of those, lower ids are kept first.
    """
    kept_RV = weights_RV.masked_fill(weights_RV < floor_R1, 0.0)
    if tied_R1.any():
        rows = tied_R1.squeeze(1).nonzero().squeeze(1)
        equal_TV = kept_RV[rows] == floor_R1[rows]
        n_equal_T1 = n_wanted_R1[rows] - (kept_RV[rows] > floor_R1[rows]).sum(dim=1, keepdim=True)
        kept_RV[rows] = kept_RV[rows].masked_fill(equal_TV & (equal_TV.cumsum(dim=1) > n_equal_T1), 0.0)
    return kept_RV


def _sort_values(weights_RV: Tensor) -> Tensor:
    if weights_RV.device.type == "cpu":
        return torch.from_numpy(np.sort(weights_RV.numpy(), axis=1))
    return weights_RV.sort(dim=1).values
