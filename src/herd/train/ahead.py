"""Batches made by a thread of its own before they are asked for: a step does not wait for disks and networks."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from herd.train.batch import WHOLE, Batch, BatchSource, Part


@dataclass
class ReadAhead:
    """The same batches as `source`, `depth` steps ahead. Errors come with the step that they belong to.

    Only the thread touches `source`, so a source need not be made for several threads.
    """

    source: BatchSource
    depth: int = 2
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="batches"), repr=False
    )
    _made: dict[tuple[int, Part], Future[list[Batch]]] = field(default_factory=dict, repr=False)

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        wanted = [(step + more, part) for more in range(self.depth + 1)]
        for key in self._made.keys() - set(wanted):  # somebody went on elsewhere
            self._made.pop(key).cancel()
        for key in wanted:
            if key not in self._made:
                self._made[key] = self._thread.submit(self.source.batch, *key)
        return self._made.pop((step, part)).result()
