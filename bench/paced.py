"""A side in its own process: waits for a line from `bench.sides.Worker`, does a step, tells of it on another line."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any


def wait() -> None:
    sys.stdin.readline()


def tell(**facts: Any) -> None:
    print(json.dumps({"bench": 1, **facts}), flush=True)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Paced:
    """Waits before every step and tells of it after. As a `Progress` of herd's loop it does both: begin the first one.

    tokens: of each step, or what a step adds to `seen`. `extra` seconds a step, spent before, are counted too.
    """

    def __init__(self, tokens: Sequence[int] | None = None, extra: float = 0.0) -> None:
        self.seen = 0
        self._tokens, self._extra, self._done, self._started = tokens, extra, 0, 0.0

    def begin(self) -> None:
        wait()
        self._started = time.perf_counter()

    def end(self, loss: float) -> None:
        seconds = time.perf_counter() - self._started + self._extra
        tell(rate=(self._tokens[self._done] if self._tokens else self.seen) / seconds, loss=loss)
        self.seen, self._done = 0, self._done + 1

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Any] | None = None) -> None:
        self.end((facts or {})["loss"])
        self.begin()

    def note(self, text: str) -> None:
        pass
