"""Weights in memory of their own, on large pages, for who reads them for every token.

A model opens as the mapped file: at once, and in memory that the system may take back. Its pages have 4 KiB, though,
and every one of them costs a look-up and stops the processor's reading ahead. A copy on pages of 2 MiB is read faster
(docs/serving.md has the figures); it takes the time of reading the file once, and memory that stays taken.
Linux gives such pages to whom asks for them; elsewhere, and where it has none left, the copy lies on plain ones.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor, nn

from herd.devices import device_of, free_memory

LARGE = 2**21  # bytes of a large page
_LEAST = 2**16  # bytes: smaller tensors stay where they are
_WORTH = 2**26  # bytes: caches hold much of a smaller model anyway
_SHARE = 0.5  # of the memory that is free: the cache of keys and values wants the rest


def fits(model: nn.Module) -> bool:
    """Whether a copy is worth having: the model is on a CPU, there are large pages, and memory for both."""
    device = device_of(model)
    if device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    return _WORTH <= sum(_room(tensor) for tensor in _weights(model)) <= _SHARE * free_memory(device)


def make_resident(model: nn.Module) -> int:
    """Move a model's weights to large pages, in place; the bytes moved. What other models share stays with them."""
    weights = _weights(model)
    total = sum(_room(tensor) for tensor in weights)
    if not total:
        return 0
    room = arena(total)
    start = 0
    with torch.no_grad():
        for tensor in weights:
            place = room[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            place.copy_(tensor)
            tensor.data = place
            start += _room(tensor)
    return total


def _weights(model: nn.Module) -> list[Tensor]:
    """Each tensor once: a tied output matrix is the embedding."""
    found = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.nbytes >= _LEAST}
    return [tensor for tensor in found.values() if not tensor.is_meta]


def _room(tensor: Tensor) -> int:
    """Bytes of its place; the next one begins at a plain page."""
    return -(-tensor.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def arena(size: int) -> Tensor:
    """[size] bytes that begin at a large page; they live as long as a tensor looks at them."""
    memory = mmap.mmap(-1, size + LARGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    first = -whole.data_ptr() % LARGE
    return whole[first : first + size]
