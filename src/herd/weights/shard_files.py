"""Regions of the tensors of a checkpoint: what any plan wants of them, wherever the plan before has put it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from herd.errors import FormatError
from herd.weights.sharded import MANIFEST, Box, Manifest, Place
from herd.weights.tensors import printable

_OPEN_FILES = 2048  # headers kept open: the ranks that hold shards of one tensor are fewer, at any size planned for


class ShardFiles:
    """Reads regions of the tensors of a checkpoint; what lies in no asked region is never read."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._opened = functools.lru_cache(maxsize=_OPEN_FILES)(_opened)

    def read_into(self, target: Tensor, name: str, offset: Box) -> None:
        """Fill `target` (on any device) with the values of `name` from `offset` on."""
        end = tuple(o + s for o, s in zip(offset, target.shape, strict=True))
        for place in self.manifest.tensors[name].places:
            low = [max(a, b) for a, b in zip(offset, place.offset, strict=True)]
            stop = [min(a, b + s) for a, b, s in zip(end, place.offset, place.shape, strict=True)]
            if all(a < b for a, b in zip(low, stop, strict=True)):
                there = tuple(slice(a - o, b - o) for a, b, o in zip(low, stop, place.offset, strict=True))
                here = tuple(slice(a - o, b - o) for a, b, o in zip(low, stop, offset, strict=True))
                target[here].copy_(self._region(place, there))

    def read(self, name: str) -> Tensor:
        """A whole tensor, in main memory."""
        tensor = self.manifest.tensors[name]
        if len(tensor.places) == 1:  # as it lies in the file, mapped
            return self._region(tensor.places[0], None)
        whole = torch.empty(tensor.shape, dtype=tensor.dtype)
        self.read_into(whole, name, (0,) * len(tensor.shape))
        return whole

    def _region(self, place: Place, region: tuple[slice, ...] | None) -> Tensor:
        path = self.folder / place.file
        try:
            part = self._opened(path).get_slice(place.key)
            if tuple(part.get_shape()) != place.shape:
                raise FormatError(
                    f"{place.file} has another shape of {printable(place.key)} than {MANIFEST}", where=str(path)
                )
            values: Tensor = part[region] if region else self._opened(path).get_tensor(place.key)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{place.file}: {error}", where=str(path)) from error
        return values


def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt", device="cpu")
