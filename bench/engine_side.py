"""Programs with a model open that take turns: each a process of its own, asked over a pipe, asleep in between.

    side = Side("llama.cpp", [sys.executable, "-m", "bench.engine_llama_cpp", file])
    pace = side.run(prompts, new=33)

The process calls `serve(run)`. `run` works on the prompts together and tells a `Clock` which of them were given a
token; so every program is timed by one rule, inside its own process: the seconds until all have their first token, and
the tokens a second from there until the first of them is done, so that the batch is full in all that is counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.sides import Program

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Pace:
    """What one run told: seconds until the first tokens and until all is done, and tokens a second in between."""

    first: float
    whole: float
    rate: float  # 0 where one token each was asked for


class Clock:
    """Notes when which of `count` sequences were given a token; each is to get `new`."""

    def __init__(self, count: int, new: int) -> None:
        self._count, self._new = count, new
        self._given: Counter[int] = Counter()
        self._all_begun = self._first_done = 0.0
        self._between = 0
        self._started = time.perf_counter()

    def tick(self, sequences: Iterable[int]) -> None:
        """One step is over, and these sequences got a token each (twice named: two)."""
        now = time.perf_counter() - self._started
        given = Counter(sequences)
        if self._all_begun and not self._first_done:
            self._between += given.total()
        self._given += given
        if not self._all_begun and len(self._given) == self._count:
            self._all_begun = now
        if not self._first_done and max(self._given.values(), default=0) >= self._new:
            self._first_done = now

    def pace(self) -> Pace:
        whole = time.perf_counter() - self._started
        if set(self._given.values()) != {self._new} or len(self._given) != self._count:
            raise RuntimeError(f"{self._count} sequences were to get {self._new} tokens and got {dict(self._given)}")
        full = self._first_done - self._all_begun
        return Pace(self._all_begun, whole, self._between / full if self._between and full > 0 else 0.0)


class Side(Program):
    """A program with a model open."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        super().__init__(name, command)
        self.told()  # that it is ready

    def run(self, prompts: Prompts, new: int, **options: Any) -> Pace:
        """`new` tokens after each of the prompts, which run together."""
        self.ask(json.dumps({"prompts": [list(prompt) for prompt in prompts], "new": new, **options}))
        found = Pace(**self.told()["pace"])
        print(f"# {self.name}: {len(prompts)} x {len(prompts[0])} + {new}: {found}", file=sys.stderr, flush=True)
        return found


def serve(run: Callable[..., Pace]) -> None:
    """The process's half of the pipe: says that it is ready, then answers one question a line."""
    print(json.dumps({"bench": 1}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"bench": 1, "pace": asdict(run(**json.loads(line)))}), flush=True)
