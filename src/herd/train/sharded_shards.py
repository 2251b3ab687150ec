"""What a process holds of the state: shards of tensors, and their copy in memory from which a checkpoint is written.

shards = Staging().copy({"model.lm_head.weight": weight, ...})     # a pause of one memcpy; then training goes on
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[int, ...]


@dataclass(frozen=True)
class Shard:
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
    tensor = tensor.detach()
    if not hasattr(tensor, "to_local"):
        return Shard(name, tuple(tensor.shape), (0,) * tensor.ndim, tensor)
    (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]  # DTensor's side of torch's checkpoints
    return Shard(name, tuple(tensor.shape), tuple(chunk.offsets), tensor.to_local())


class Staging:
    """Main memory for one copy of the state, kept from checkpoint to checkpoint: fresh pages would cost more than the
    copy. It is page-locked where the state is on a GPU, so that the copies run at the bus's speed, side by side.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> list[Shard]:
        """The shards of this process, copied; no empty ones. What the copy before gave out changes with it."""
        shards = [shard for name, tensor in tensors.items() if (shard := shard_of(name, tensor)).local.numel()]
        self._kept = {shard.name: self._room(shard) for shard in shards}
        devices = set()
        for shard in shards:
            self._kept[shard.name].copy_(shard.local, non_blocking=True)
            if shard.local.is_cuda:
                devices.add(shard.local.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return [Shard(shard.name, shard.whole, shard.offset, self._kept[shard.name]) for shard in shards]

    def _room(self, shard: Shard) -> Tensor:
        room, local = self._kept.get(shard.name), shard.local
        if room is not None and room.shape == local.shape and room.dtype == local.dtype:
            return room
        return torch.empty(local.shape, dtype=local.dtype, pin_memory=local.is_cuda)
