"""FP8 matrices as BF16, for formats that have no FP8 or not everywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from herd.weights.stored import FP8, StoredModel, input_scale_name, scale_name
from herd.weights.tensors import Entry

_CHUNK = 2**25  # values that are widened at a time, so that a large matrix needs little besides itself


def fp8_names(model: StoredModel) -> list[str]:
    """The FP8 matrices of a model, in its order."""
    return [name for name, entry in model.tensors.items() if entry.dtype == FP8]


def widened(model: StoredModel, names: Collection[str]) -> StoredModel:
    """The same model with these FP8 matrices as the nearest BF16 of values * scale, and without their scales."""
    scales = {of(name) for name in names for of in (scale_name, input_scale_name)}
    tensors = {
        name: _widened(entry, model.tensors) if name in names else entry
        for name, entry in model.tensors.items()
        if name not in scales
    }
    made = replace(model, tensors=tensors)
    return made if made.is_fp8 else replace(made, activation_bound=None)


def _widened(entry: Entry, tensors: Mapping[str, Entry]) -> Entry:
    scale = tensors[scale_name(entry.name)]

    def values() -> torch.Tensor:
        narrow, scale_of_row = entry.values(), scale.values().float().reshape(-1, 1)
        wide = torch.empty(entry.shape, dtype=torch.bfloat16)
        rows = max(1, _CHUNK // entry.shape[1])
        for start in range(0, entry.shape[0], rows):
            part = slice(start, start + rows)
            wide[part] = narrow[part].float().mul_(scale_of_row[part])
        return wide

    return Entry(entry.name, entry.shape, torch.bfloat16, values, entry.place)
