"""The processes that write and read checkpoints together: what they tell each other, over a group of their own.

The group is gloo's, also beside NCCL: the objects are small, live in main memory, and go between threads that write
while training goes on, so they must never meet the collectives of training. One process is the same with nobody to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from herd.errors import HerdError

T = TypeVar("T")
_DAYS = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None

    @staticmethod
    def here(patient: bool = False) -> Ranks:
        """The processes of the default group, if there is one. All of them call this together.

        `patient` ones wait as long as it takes for what the first does alone: whole stages, measures at a gate.
        """
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return Ranks()
        group = dist.new_group(backend="gloo", timeout=_DAYS if patient else None)
        return Ranks(dist.get_rank(), dist.get_world_size(), group)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank, on every rank."""
        if self.group is None:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value, self.group)
        return values  # type: ignore[return-value]  # all are filled

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, on every rank; its error too."""
        if self.group is None:
            return work()
        told: list[T | HerdError | OSError | None] = [None]
        if self.is_first:
            try:
                told = [work()]
            except (HerdError, OSError) as error:
                told = [error]
        dist.broadcast_object_list(told, 0, self.group)
        if isinstance(told[0], HerdError | OSError):
            raise told[0]
        return told[0]  # type: ignore[return-value]  # rank 0 put it there
