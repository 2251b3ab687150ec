"""Ranks that work longer than their peers: all wait for the slowest at every collective, so it sets the pace.

What is compared is own work, without the waits: how long a step takes is the same on every rank. Pipeline stages are
unlike by design and are compared among themselves.

Work is what a thread sees at its looks, so a short time is chance, and on a machine that others use too every rank is
slow now and then. Reported is who is slow in several judgements in a row, each of many looks.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from herd.train.faults.settings import FaultSettings
from herd.train.parallel.plan import ParallelPlan


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


class Stragglers:
    """Adds up windows until a judgement stands on enough looks; remembers who was slow how often in a row."""

    def __init__(self, plan: ParallelPlan, settings: FaultSettings) -> None:
        self.plan, self.settings = plan, settings
        self._in_a_row: dict[int, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._steps, self._looks = 0, 0.0
        self._work = [0.0] * self.plan.world_size

    def window(self, work: Sequence[float], looks: Sequence[float]) -> list[Slow]:
        """Seconds of work and looks of every rank over one more window; who is to be reported now."""
        self._steps += self.settings.slow_window
        self._looks += min(looks)
        self._work = [before + now for before, now in zip(self._work, work, strict=True)]
        if self._looks < self.settings.slow_looks:
            return []
        found = slow_ranks(self._work, self.plan, self.settings.slow_factor, self._steps)
        self._in_a_row = {slow.rank: self._in_a_row.get(slow.rank, 0) + 1 for slow in found}
        self._begin()
        return [slow for slow in found if self._in_a_row[slow.rank] >= self.settings.slow_times]
