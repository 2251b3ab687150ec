"""Ranks that work longer than their peers: all wait for the slowest at every collective, so it sets the pace.

What is compared is own work, without the waits: how long a step takes is the same on every rank. Pipeline stages are
unlike by design and are compared among themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from herd.train.parallel.plan import ParallelPlan

LEAST_LOOKS = 10  # of a window: below that a share is chance


@dataclass(frozen=True)
class Slow:
    """Rank `rank` works `factor` times as long as the middle one of its peers."""

    rank: int
    factor: float
    seconds: float  # of own work a step

    def __str__(self) -> str:
        times = f"{self.factor:.2f} times the work time of its peers"
        return f"rank {self.rank} is slow: {times} ({self.seconds:.3g} s a step)"


def slow_ranks(work: Sequence[float], plan: ParallelPlan, factor: float, steps: int) -> list[Slow]:
    """`work`: seconds of own work of every rank of the plan over `steps` steps. The slowest comes first.

    The middle of an even number is the lower one, so that of two ranks the slower can be told.
    """
    found = []
    for stage in range(plan.pp):
        peers = [rank for rank in range(plan.world_size) if plan.place(rank).pp == stage]
        middle = statistics.median_low([work[rank] for rank in peers])
        if middle > 0:
            times = ((rank, work[rank] / middle) for rank in peers)
            found += [Slow(rank, ratio, work[rank] / steps) for rank, ratio in times if ratio >= factor]
    return sorted(found, key=lambda one: -one.factor)
