"""The log of a run over all its interruptions: `run-log.jsonl` in the training's folder, a line an event.

    start           the first process of the run begins
    interruption    written when the run goes on: why it stopped, at which rank and step, what that cost
    slow            a rank that works longer than the others
    end             the last step is done

Effective training time is the paper's: the time of steps that count, over the time since the run first began.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError
from herd.train.faults.lives import Verdict, read_lives, verdict
from herd.train.history import StepRecord, read_history

NAME, RANKS = "run-log.jsonl", "ranks"


@dataclass(frozen=True)
class Interruption:
    """`time` in seconds since 1970, of the last word of the run before it stopped.

    `again_seconds` are steps done again because no checkpoint had them, `down_seconds` the time without training.
    """

    time: float
    cause: str
    category: str
    ranks: tuple[int, ...]
    step: int
    detail: str
    resumed_step: int | None = None  # None: it has not gone on
    again_seconds: float = 0.0
    down_seconds: float = 0.0

    @property
    def lost_seconds(self) -> float:
        return self.again_seconds + self.down_seconds


class RunLog:
    """Appends events. A disk that refuses them ends no run: the run's own files will say so."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def write(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts}, ensure_ascii=False) + "\n"
        with suppress(OSError):
            cut = self.path.exists() and self.path.read_bytes()[-1:] != b"\n"  # by a kill or a full disk
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(("\n" if cut else "") + line)

    def interrupted(self, found: Verdict, resumed_step: int, again_seconds: float) -> None:
        """The run goes on: write down why it had stopped."""
        now = time.time()
        stopped = Interruption(
            round(found.time, 3),
            found.cause.name,
            found.cause.category,
            found.ranks,
            found.step,
            found.detail,
            resumed_step,
            round(again_seconds, 3),
            round(max(0.0, now - found.time), 3),
        )
        self.write("interruption", **{**asdict(stopped), "stopped": stopped.time, "time": round(now, 3)})


@dataclass(frozen=True)
class Account:
    """A run's log, read: what happened, and what the time went to. All in seconds."""

    started: float
    until: float  # the end, or the last sign of life
    ended: bool
    processes: int
    plan: str
    interruptions: Sequence[Interruption]
    slow: Sequence[Mapping[str, Any]]
    useful: float

    @property
    def wall(self) -> float:
        return max(self.until - self.started, 1e-9)

    @property
    def effective(self) -> float:
        """Share of the time that went into steps that count."""
        return min(1.0, self.useful / self.wall)


def last_verdict(folder: Path) -> Verdict | None:
    """What stopped the run that trained in `folder`; None if it came to its end, or never was."""
    found = verdict(read_lives(folder / RANKS))
    if found is None:
        return None
    history = folder / "history.jsonl"
    records = read_history(history)
    if not records:
        return found
    return replace(found, step=max(found.step, records[-1].step), time=max(found.time, history.stat().st_mtime))


def step_seconds(records: Sequence[StepRecord], tokens: int = 0) -> float:
    """The time that these steps took; `tokens` were done before them."""
    before = [tokens, *(record.tokens for record in records)]
    return sum((b - a) / record.tokens_per_s for (a, b), record in zip(pairwise(before), records, strict=True))


def read_account(folder: Path) -> Account:
    """The account of the run whose training folder this is; what stopped it last too, if it has not gone on.

    Raises ArtifactError where there is no log.
    """
    path = folder / NAME
    if not path.exists():
        raise ArtifactError("there is no log of a run here", where=str(path), mend="name a folder that a run trains in")
    events = [event for event in _events(path) if isinstance(event, dict) and "event" in event]
    starts = [event for event in events if event["event"] == "start"]
    if not starts:
        raise ArtifactError("this log has no beginning", where=str(path), mend="a full disk may have cut it")
    records = read_history(folder / "history.jsonl")
    lives = read_lives(folder / RANKS)
    ends = [event for event in events if event["event"] == "end"]
    stopped = [_interruption(event) for event in events if event["event"] == "interruption"]
    last = None if ends else last_verdict(folder)
    if last is not None:
        stopped.append(
            Interruption(last.time, last.cause.name, last.cause.category, last.ranks, last.step, last.detail)
        )
    signs = [events[-1]["time"], *(life.time for life in lives), *([last.time] if last else [])]
    until = ends[-1]["time"] if ends else max(signs)
    useful = ends[-1]["useful_seconds"] if ends else step_seconds(records)
    slow = [event for event in events if event["event"] == "slow"]
    first = starts[0]
    return Account(first["time"], until, bool(ends), first["processes"], first["plan"], stopped, slow, useful)


def _events(path: Path) -> list[Any]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):  # a line that a full disk cut
            found.append(json.loads(line))
    return found


def _interruption(event: Mapping[str, Any]) -> Interruption:
    names = Interruption.__dataclass_fields__
    facts = {name: value for name, value in event.items() if name in names}
    return Interruption(**{**facts, "time": event["stopped"], "ranks": tuple(event["ranks"])})
