"""What a process holds of the state: shards of tensors, and their copy in memory from which a checkpoint is written.

shard_of("model.lm_head.weight", weight)      # of a DTensor: where in the whole this process's part of it lies
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.placement_types import Placement

Box = tuple[int, ...]


class Shard(NamedTuple):
    """The values of tensor `name` (of shape `whole`) from `offset` on, as far as this process holds them."""

    name: str
    whole: Box
    offset: Box
    local: Tensor

    @property
    def is_whole(self) -> bool:
        return tuple(self.local.shape) == self.whole


def shard_of(name: str, tensor: Tensor) -> Shard:
    """The shard that this process holds of a plain tensor (all of it) or a DTensor; `local` is its own memory.

    Where a DTensor's shard lies is torch's to say: it knows in which order FSDP and tensor parallelism cut, and that
    the last shards of a length that does not divide are smaller, or empty.
    """
    whole = tuple(tensor.shape)
    if not hasattr(tensor, "to_local"):
        return Shard(name, whole, (0,) * len(whole), tensor.detach())
    offset = _offset(whole, tensor.device_mesh, tensor.placements)  # type: ignore[attr-defined]  # a DTensor
    return Shard(name, whole, offset, tensor.to_local().detach())


@functools.lru_cache(maxsize=4096)  # a tenth of a millisecond each: more than the copy of a small model
def _offset(whole: Box, mesh: DeviceMesh, placements: tuple[Placement, ...]) -> Box:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # one process has no use for it

    return compute_local_shape_and_global_offset(whole, mesh, placements)[1]


class Staging:
    """A copy of the state in main memory, made while the next step computes its gradients, which only reads the state.

        shards = staging.begin(tensors)     # where the copy will be
        staging.fill()                      # in another thread: copies, returns when the copy is whole
        staging.staged()                    # before the next update of `tensors`: they may change from now on

    The memory is kept from one checkpoint to the next, for fresh pages would cost more than the copy. Of a GPU's state
    it is page-locked; a stream of its own copies it, and the update waits for that on the GPU, not here.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, Tensor] = {}
        self._known: dict[str, tuple[Tensor, Shard]] = {}  # of the state as it was last time
        self._to_copy: list[tuple[Tensor, Tensor]] = []
        self._whole = threading.Event()
        self._whole.set()
        self._copied: torch.cuda.Event | None = None

    @torch.no_grad()
    def begin(self, tensors: Mapping[str, Tensor]) -> list[Shard]:
        """The shards of this process as they will be copied; no empty ones. The copy before is overwritten."""
        self._whole.clear()
        self._known = {name: (tensor, self._shard(name, tensor)) for name, tensor in tensors.items()}
        shards = [shard for _, shard in self._known.values() if shard.local.numel()]
        self._rooms = {shard.name: self._room(shard.name, shard.local) for shard in shards}
        rooms = list(self._rooms.values())
        pairs = [(room, shard.local) for room, shard in zip(rooms, shards, strict=True)]
        self._to_copy = [pair for pair in pairs if not pair[1].is_cuda]
        self._copied = _copy_on_gpu([pair for pair in pairs if pair[1].is_cuda])
        return [shard._replace(local=room) for shard, room in zip(shards, rooms, strict=True)]

    @torch.no_grad()
    def fill(self) -> None:
        try:
            for room, values in self._to_copy:
                if values.is_contiguous():  # not by torch, which would wake threads of its own beside those at work
                    ctypes.memmove(room.data_ptr(), values.data_ptr(), values.nbytes)
                else:
                    room.copy_(values)
            if self._copied is not None:
                self._copied.synchronize()
        finally:
            self._to_copy = []
            self._whole.set()

    def staged(self) -> None:
        """Wait until the tensors that `begin` was given may change."""
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)
        else:
            self._whole.wait()

    def _shard(self, name: str, tensor: Tensor) -> Shard:
        """`shard_of`, known from the checkpoint before where it is the same memory: to ask a DTensor takes as long as
        to copy a small one."""
        before, shard = self._known.get(name, (None, None))
        if before is tensor and shard is not None:
            local: Tensor = getattr(tensor, "_local_tensor", tensor)  # a DTensor's, without its bookkeeping
            if local.data_ptr() == shard.local.data_ptr() and local.shape == shard.local.shape:
                return shard
        return shard_of(name, tensor)

    def _room(self, name: str, values: Tensor) -> Tensor:
        room = self._rooms.get(name)
        if room is not None and room.shape == values.shape and room.dtype == values.dtype:
            return room
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)


def _copy_on_gpu(pairs: Sequence[tuple[Tensor, Tensor]]) -> torch.cuda.Event | None:
    """Copies that begin when all that was asked of the GPU so far is done; the event of their end."""
    if not pairs:
        return None
    device = pairs[0][1].device
    stream, done = torch.cuda.Stream(device), torch.cuda.Event()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for room, values in pairs:
            room.copy_(values, non_blocking=True)
        done.record(stream)
    return done
