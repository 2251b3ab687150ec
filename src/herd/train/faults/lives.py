"""What each rank last said of itself: `ranks/00003.json` beside the checkpoints, read when the run has stopped.

A rank writes its own file only, in place, always of one size: a full disk does not refuse it, and a killed rank leaves
the last one. So a rank without an `ended` was killed, whoever killed it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from herd.files import make_folder
from herd.train.faults.causes import BY_NAME, KILLED, Cause, rank_of_cause

_SIZE = 4096  # bytes of a file: a block


@dataclass(frozen=True)
class Life:
    """One rank. `beats` counts its words, `progress` the pieces of work it entered."""

    rank: int
    pid: int = 0
    host: str = ""
    step: int = 0
    phase: str = ""
    where: str = ""  # what the main thread stands at: file:line in function
    waits: bool = False  # whether that is a wait for other ranks
    collectives: int = 0  # begun so far
    collective: str = ""  # the last one begun
    idle: float = 0.0  # seconds since the last progress
    beats: int = 0
    time: float = 0.0
    ended: str = ""  # a cause's name, or "done"
    detail: str = ""
    blamed: tuple[int, ...] = ()  # ranks that this one names

    @staticmethod
    def here(rank: int) -> Life:
        return Life(rank, os.getpid(), socket.gethostname(), time=time.time())

    def at(self) -> str:
        """Where it stands, in words."""
        collective = f" after {self.collective} number {self.collectives}" if self.collective else ""
        return f"step {self.step}, {self.phase or 'the start'}, {self.where or 'nowhere known'}{collective}"


class LifeFile:
    """A rank's own file."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.life = Life.here(rank)
        make_folder(folder)
        self._handle: int | None = os.open(folder / f"{rank:05d}.json", os.O_RDWR | os.O_CREAT, 0o644)
        self.say()

    def say(self, **changes: Any) -> None:
        """Write what has changed. A disk that refuses it must not end a run: then the last word stands."""
        self.life = replace(self.life, beats=self.life.beats + 1, time=time.time(), **changes)
        text = json.dumps(asdict(self.life)).encode()
        if len(text) > _SIZE:
            text = json.dumps(asdict(replace(self.life, detail=self.life.detail[:500], where=""))).encode()
        with suppress(OSError):
            if self._handle is not None:
                os.pwrite(self._handle, text.ljust(_SIZE - 1)[: _SIZE - 1] + b"\n", 0)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_lives(folder: Path) -> list[Life]:
    """The last words of all ranks, by rank; a file that is being written is read again."""
    return [life for path in sorted(folder.glob("*.json")) if (life := _read(path)) is not None]


def _read(path: Path) -> Life | None:
    for _ in range(5):
        try:
            words = json.loads(path.read_bytes())
            return Life(**{**words, "blamed": tuple(words["blamed"])})
        except (ValueError, TypeError, KeyError):
            time.sleep(0.01)
        except OSError:
            return None
    return None


def forget_lives(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Verdict:
    """Why all of them stopped, as far as they said."""

    cause: Cause
    ranks: tuple[int, ...]  # where it began
    step: int
    detail: str
    time: float  # of the last word of any rank


def verdict(lives: Sequence[Life]) -> Verdict | None:
    """What stopped the ranks; None when there are none, or all came to their end."""
    if not lives or all(life.ended == "done" for life in lives):
        return None
    found = [(BY_NAME.get(life.ended, KILLED), life) for life in lives if life.ended != "done"]
    cause = min((cause for cause, _ in found), key=rank_of_cause)
    those = [life for one, life in found if one == cause]
    named = sorted({rank for life in those for rank in life.blamed}) or [life.rank for life in those]
    nearest = sorted(those, key=lambda life: life.rank not in named)
    detail = next((life.detail for life in nearest if life.detail), "")
    if cause == KILLED:
        detail = "; ".join(f"rank {life.rank} at {life.at()}" for life in those)
    return Verdict(cause, tuple(named), max(life.step for life in lives), detail, max(life.time for life in lives))
