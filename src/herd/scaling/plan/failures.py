"""What breaks in a run of weeks, drawn from the rates that the paper published: `survive(habits, gpus, days, seed)`.

Table 5: in 54 days on 16,384 H100 there were 419 unexpected interruptions and 47 planned ones. Each cause strikes every
GPU alike and at any time, so that the times between are exponential. After each, the job is found to have stopped,
faulty machines are replaced, processes start again, the last checkpoint is read, and the steps since then are done
again. How long these take is not published; what is taken here is herd's choice and can be set.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from herd.config import need

DAY, HOUR = 86_400.0, 3_600.0
OBSERVED_DAYS, OBSERVED_GPUS = 54, 16_384

_DRAWN = 200_000  # interruptions, of all draws together: more change nothing but the time

Kind = Literal["hardware", "software", "maintenance", "planned"]

# Paper, table 5: cause, its kind, how often; the last row is section 3.3.4's planned interruptions.
CAUSES: tuple[tuple[str, Kind, int], ...] = (
    ("faulty GPU", "hardware", 148),
    ("GPU HBM3 memory", "hardware", 72),
    ("software bug", "software", 54),
    ("network switch or cable", "hardware", 35),
    ("host maintenance", "maintenance", 32),
    ("GPU SRAM memory", "hardware", 19),
    ("GPU system processor", "hardware", 17),
    ("network card", "hardware", 7),
    ("NCCL watchdog timeout", "software", 7),
    ("silent data corruption", "hardware", 6),
    ("GPU thermal interface or sensor", "hardware", 6),
    ("SSD", "hardware", 3),
    ("power supply", "hardware", 3),
    ("server chassis", "hardware", 2),
    ("IO expansion board", "hardware", 2),
    ("dependency", "software", 2),
    ("CPU", "hardware", 2),
    ("system memory", "hardware", 2),
    ("planned", "planned", 47),
)


@dataclass(frozen=True)
class Habits:
    """How a run meets interruptions. Seconds; nothing of it is published."""

    checkpoint_every: float = 0.0  # 0: what loses least (Young 1974), from the pause and the time between interruptions
    pause: float = 1.0  # of training, for a checkpoint
    detect: float = 120.0  # until a stopped job is known to have stopped; herd's choice
    restart: float = 300.0  # processes, process groups, compilation, until the first step; herd's choice
    replace: float = 180.0  # faulty machines by spare ones that stand ready; herd's choice
    read: float = 30.0  # the checkpoint

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "pause", "detect", "restart", "replace", "read"):
            need(self, name, getattr(self, name) >= 0, "0 or more")

    def interval(self, between: float) -> float:
        """Seconds between checkpoints, a second at least, where interruptions are `between` seconds apart."""
        return max(1.0, self.checkpoint_every or max(60.0, math.sqrt(2 * self.pause * between)))

    def gap(self, kind: Kind) -> float:
        """Seconds from an interruption to training again, lost steps not counted."""
        start = self.restart + self.read
        if kind == "planned":
            return start  # a checkpoint was written first, and nobody had to notice
        return self.detect + start + (self.replace if kind in ("hardware", "maintenance") else 0.0)


@dataclass(frozen=True)
class Survival:
    """Means over all draws, and the range that nine of ten draws lie in."""

    effective: float  # training time of the time that passed
    effective_low: float
    effective_high: float
    unexpected: float
    unexpected_low: int
    unexpected_high: int
    planned: float
    causes: Mapping[str, float]
    between: float  # seconds, unexpected ones
    interval: float  # seconds between checkpoints
    lost: float  # seconds of steps done again, a run
    down: float  # seconds without training, a run
    paused: float  # seconds of checkpoints, a run


@dataclass(frozen=True)
class Drawn:
    """An interruption: seconds since the beginning, and why."""

    at: float
    cause: str
    kind: Kind


def interruptions(gpus: int, seconds: float, draw: random.Random, scale: float = 1.0) -> Iterator[Drawn]:
    """In their order. `scale`: how much more often than on the paper's cluster."""
    total = sum(count for _, _, count in CAUSES)
    rate = scale * total * gpus / (OBSERVED_GPUS * OBSERVED_DAYS * DAY)
    weights = [count for _, _, count in CAUSES]
    at = draw.expovariate(rate)
    while at < seconds:
        cause, kind, _ = draw.choices(CAUSES, weights)[0]
        yield Drawn(at, cause, kind)
        at += draw.expovariate(rate)


def survive(habits: Habits, gpus: int, days: float, seed: int = 0, draws: int = 200, scale: float = 1.0) -> Survival:
    """Monte-Carlo over `draws` runs of so many days of the calendar; over fewer where each meets very many."""
    seconds = days * DAY
    between = OBSERVED_GPUS * OBSERVED_DAYS * DAY / (scale * gpus * _unexpected())
    if draws * seconds > _DRAWN * between:
        draws = min(draws, max(10, int(_DRAWN * between / seconds)))
    interval = habits.interval(between)
    runs = [_run(habits, gpus, seconds, interval, random.Random(f"{seed}/{number}"), scale) for number in range(draws)]
    shares, counts = sorted(run.effective for run in runs), sorted(run.unexpected for run in runs)
    causes = Counter[str]()
    for run in runs:
        causes.update(run.causes)
    low, high = draws // 20, draws - 1 - draws // 20

    def mean(name: str) -> float:
        return float(sum(getattr(run, name) for run in runs) / draws)

    return Survival(
        effective=mean("effective"),
        effective_low=shares[low],
        effective_high=shares[high],
        unexpected=mean("unexpected"),
        unexpected_low=counts[low],
        unexpected_high=counts[high],
        planned=mean("planned"),
        causes={name: count / draws for name, count in causes.most_common()},
        between=between,
        interval=interval,
        lost=mean("lost"),
        down=mean("down"),
        paused=mean("paused"),
    )


@dataclass(frozen=True)
class _Run:
    effective: float
    unexpected: int
    planned: int
    causes: Counter[str]
    lost: float
    down: float
    paused: float


def _run(habits: Habits, gpus: int, seconds: float, interval: float, draw: random.Random, scale: float) -> _Run:
    """One run: what strikes while it is down anyway is repaired in the same time, and counts."""
    lost = down = paused = useful = 0.0
    up_since, counts, causes = 0.0, Counter[Kind](), Counter[str]()
    cycle = interval + habits.pause  # training and the checkpoint after it
    for one in interruptions(gpus, seconds, draw, scale):
        counts[one.kind] += 1
        causes[one.cause] += 1
        back = one.at + habits.gap(one.kind)
        if one.at <= up_since:
            down += max(0.0, back - up_since)
            up_since = max(up_since, back)
            continue
        up = one.at - up_since
        written = int(up // cycle)
        again = 0.0 if one.kind == "planned" else up - written * cycle
        paused += written * habits.pause
        lost += again
        useful += up - again - written * habits.pause
        down += back - one.at
        up_since = back
    up = max(0.0, seconds - up_since)
    pauses = int(up // cycle) * habits.pause
    useful, paused = useful + up - pauses, paused + pauses
    unexpected = sum(count for kind, count in counts.items() if kind != "planned")
    return _Run(max(0.0, useful) / seconds, unexpected, counts["planned"], causes, lost, down, paused)


def _unexpected() -> int:
    return sum(count for _, kind, count in CAUSES if kind != "planned")
