"""What the scheduler keeps of a request, and what it says about a pass. No tensors."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from herd.generate.pages import Key, Table

_STALE = 64  # entries of the queue that nobody waits behind any more, before they are cleared out


@dataclass(frozen=True)
class Chunk:
    """Positions `start` to `stop` of a request are to be computed; its pages are those of `table` by then.

    The last of them are `drafts`: guesses of what the request will say.
    """

    number: int
    start: int
    stop: int
    table: Table
    drafts: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    copies: list[tuple[int, int]]  # pages to copy first, (from, to)
    chunks: list[Chunk]

    @property
    def n_tokens(self) -> int:
        return sum(chunk.n_tokens for chunk in self.chunks)


@dataclass(eq=False)
class Job:
    """One request, as far as the scheduler knows it."""

    number: int
    tokens: list[int]  # the prompt and what was sampled
    n_prompt: int
    limit: int  # tokens that it gets at most
    worst: int  # pages that it can come to need
    page_keys: list[Key]  # of the full pages of its prompt
    digest: Key  # equal prompts have equal ones
    share: bool
    table: Table = field(default_factory=Table)
    reserved: int = 0  # pages of `worst` that it may still take
    cached: int = 0  # tokens of the prompt that others computed

    @property
    def decodes(self) -> bool:
        return len(self.tokens) > self.n_prompt

    @property
    def missing(self) -> int:
        """Tokens of the prompt that are not computed yet."""
        return max(self.n_prompt - self.table.length, 0)

    @property
    def draftable(self) -> int:
        """Drafts that could all be accepted, with the token behind them, within its limit and so within its pages."""
        return self.limit - (len(self.tokens) - self.n_prompt) - 1


class Waiting:
    """Requests that wait: by priority, then arrival, but every `patience`-th admission goes to the oldest."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._jobs: dict[int, Job] = {}  # in the order of arrival
        self._heap: list[tuple[int, int, int]] = []  # (priority, arrival, number); cancelled ones stay in it
        self._arrivals = 0
        self._passed = 0  # admissions since the one that waited longest was admitted

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, number: int) -> bool:
        return number in self._jobs

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def add(self, job: Job, priority: int) -> None:
        self._jobs[job.number] = job
        heapq.heappush(self._heap, (priority, self._arrivals, job.number))
        self._arrivals += 1
        if len(self._heap) > 2 * len(self._jobs) + _STALE:
            self._heap = [entry for entry in self._heap if entry[2] in self._jobs]
            heapq.heapify(self._heap)

    def remove(self, number: int) -> bool:
        """Nobody wants it any more; whether it was there."""
        return self._jobs.pop(number, None) is not None

    def next(self) -> Job:
        """Whose turn it is."""
        if self._passed + 1 >= self._patience:
            return next(iter(self._jobs.values()))
        while self._heap[0][2] not in self._jobs:
            heapq.heappop(self._heap)
        return self._jobs[self._heap[0][2]]

    def admit(self, job: Job) -> None:
        """It waits no more, because it runs."""
        oldest = next(iter(self._jobs))
        del self._jobs[job.number]
        self._passed = 0 if job.number == oldest else self._passed + 1
