"""Averages of whole models: one weighted mean of parameters out of several trainings (paper 4.1.5), and a choice.

The models must be of one shape and should share an ancestor: the mean of two unrelated models is noise. Averaging
along one training run (Polyak) is `train.averaging`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from herd.errors import InputError, SettingError

T = TypeVar("T")
State = Mapping[str, Tensor]


@torch.no_grad()
def weighted_average(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """sum_i w_i state_i / sum_i w_i, accumulated in float32 and returned in the dtype of the first state.

    Tensors that are not of floating point must be equal in all states. Raises InputError when the states' names or
    shapes differ, SettingError for weights that are negative or all 0.
    """
    if len(states) != len(weights) or not states:
        raise SettingError(f"{len(weights)} weights for {len(states)} models", mend="give one weight to each model")
    if min(weights) < 0 or sum(weights) <= 0:
        raise SettingError(f"weights of an average must not be negative nor all 0: {list(weights)}")
    for number, state in enumerate(states[1:], 2):
        _check_alike(states[0], state, number)
    total = sum(weights)
    used = [(state, weight / total) for state, weight in zip(states, weights, strict=True) if weight]
    if len(used) == 1:  # a mean of one is that one to the last bit
        return {name: tensor.clone() for name, tensor in used[0][0].items()}
    return {name: _mean([(state[name], share) for state, share in used], name) for name in states[0]}


def pick(candidates: Mapping[str, T], score: Callable[[T], float]) -> tuple[str, dict[str, float]]:
    """The name of the best candidate and all scores; among equals the first. Score on a split kept for choosing."""
    scores = {name: score(candidate) for name, candidate in candidates.items()}
    return max(scores, key=lambda name: scores[name]), scores


def _mean(parts: Sequence[tuple[Tensor, float]], name: str) -> Tensor:
    first = parts[0][0]
    if not first.is_floating_point():
        if any(not torch.equal(first, tensor) for tensor, _ in parts):
            raise InputError(f"'{name}' holds {first.dtype} and differs between the models: it has no mean")
        return first.clone()
    mean = torch.zeros(first.shape, dtype=torch.float32, device=first.device)
    for tensor, share in parts:
        mean.add_(tensor.to(device=first.device, dtype=torch.float32), alpha=share)
    return mean.to(first.dtype)


def _check_alike(first: State, other: State, number: int) -> None:
    missing, surplus = sorted(first.keys() - other.keys()), sorted(other.keys() - first.keys())
    if missing or surplus:
        what = f"lacks '{missing[0]}'" if missing else f"has '{surplus[0]}' besides"
        raise InputError(f"models of different shape cannot be averaged: model {number} {what}")
    for name, tensor in first.items():
        if tensor.shape != other[name].shape:
            shapes = f"{tuple(tensor.shape)} in model 1, {tuple(other[name].shape)} in model {number}"
            raise InputError(f"models of different shape cannot be averaged: '{name}' is {shapes}")
