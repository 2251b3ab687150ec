"""What is looked for while several processes train. One process is watched by nobody and pays nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from herd.config import need, override


@dataclass(frozen=True)
class FaultSettings:
    """Nothing here changes a weight: a run may be resumed with others. All numbers are herd's choice."""

    hang_seconds: float = 600.0  # a rank that moves this long by nothing hangs: above any one micro-batch; 0 is never
    look_seconds: float = 0.1  # between two looks at what the main thread does; beats go out much more seldom
    # Steps between comparisons of what ranks hold alike; before every checkpoint they are compared anyway, so that none
    # is written of weights that ranks disagree on. 0 is only then.
    compare_every: int = 100
    slow_factor: float = 1.3  # a rank that works this many times as long as the middle one is reported; 0 is never
    slow_window: int = 20  # steps from one count of work to the next
    slow_looks: int = 200  # of every rank, that a judgement is made of: windows are added up until there are as many
    slow_times: int = 3  # judgements in a row that find a rank slow before it is reported

    def __post_init__(self) -> None:
        for name in ("hang_seconds", "compare_every"):
            need(self, name, getattr(self, name) >= 0, "0 or more")
        need(self, "look_seconds", self.look_seconds > 0, "more than 0")
        need(self, "slow_factor", self.slow_factor == 0 or self.slow_factor > 1, "0 (off) or more than 1")
        for name in ("slow_window", "slow_looks", "slow_times"):
            need(self, name, getattr(self, name) >= 1, "1 or more")

    @staticmethod
    def of_environment() -> FaultSettings:
        """What HERD_FAULTS says, e.g. `hang_seconds=300,compare_every=50`: a job's concern, and no part of a recipe."""
        said = [word.strip() for word in os.environ.get("HERD_FAULTS", "").split(",") if word.strip()]
        return override(FaultSettings(), said)
