"""Notes of a step on disk: written by unit, sorted by key, read back in buckets of keys that fit in memory.

A unit's folder holds for each step `STEP.key.npy`, `STEP.row.npy` and the columns, sorted by key; facts and sets by
document. What every unit holds of a range of keys lies together in each file, so nothing is moved between units: a
bucket reads one slice of each. How many buckets there are follows from the memory that was allowed, and no decision
depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.step import Noted

_WORKING = 4  # bytes that sorting and comparing take for each byte of a bucket
OPEN = 128  # units whose files are mapped at once


def mapped(path: Path) -> NDArray[Any]:
    """An array of a file, left on the disk unless it is small (or empty, which cannot be mapped)."""
    mode: Any = "r" if path.stat().st_size > 1 << 16 else None
    found: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    return found


class NoteWriter:
    """Gathers a unit's notes of one step and writes them."""

    def __init__(self) -> None:
        self._noted: list[Noted] = []

    def add(self, noted: Noted) -> None:
        self._noted.append(noted)

    def save(self, folder: Path, name: str) -> None:
        """Write them sorted by key; facts and sets stand in the order of the documents."""
        if not self._noted:
            return
        key, row = (np.concatenate([getattr(one, part) for one in self._noted]) for part in ("key", "row"))
        order = np.lexsort((row, key))
        np.save(folder / f"{name}.key.npy", key[order])
        np.save(folder / f"{name}.row.npy", row[order])
        for column in self._noted[0].columns:
            np.save(
                folder / f"{name}.{column}.npy", np.concatenate([one.columns[column] for one in self._noted])[order]
            )
        for fact in self._noted[0].facts:
            np.save(folder / f"{name}.fact.{fact}.npy", np.concatenate([one.facts[fact] for one in self._noted]))
        sets = [values for one in self._noted for values in one.sets or ()]
        if sets:
            np.save(folder / f"{name}.sets.npy", np.concatenate(sets))
            np.save(folder / f"{name}.ends.npy", np.cumsum([len(values) for values in sets]))


class Notes:
    """The notes of one step over the whole corpus. A document's number counts through all units.

    `dead` marks the documents that an earlier step has dropped: their notes are passed over.
    """

    def __init__(self, folders: Sequence[Path], bases: Sequence[int], name: str, memory: int) -> None:
        self._folders, self._bases, self._name, self._memory = folders, np.asarray(bases, np.int64), name, memory
        self.dead: NDArray[np.bool_] = np.zeros(int(bases[-1]), np.bool_)
        self._open: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def buckets(self, columns: Sequence[str] = ()) -> Iterator[dict[str, NDArray[Any]]]:
        """{"key", "number", columns} of all notes of living documents, a range of keys at a time, sorted by both."""
        names = ["key", "row", *columns]
        size = sum(self._bytes(unit, column) for unit in range(len(self._folders)) for column in names)
        count = max(1, -(-size * _WORKING // self._memory))
        edges = [((1 << 64) * bucket // count) for bucket in range(count + 1)]
        for low, high in pairwise(edges):
            parts = [part for unit in range(len(self._folders)) if (part := self._slice(unit, low, high, columns))]
            if not parts:
                continue
            table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            order = np.lexsort((table["number"], table["key"]))
            yield {name: values[order] for name, values in table.items()}

    def fact(self, number: int, name: str) -> Any:
        unit = self._unit(number)
        return self._column(unit, f"fact.{name}")[self._place(unit, number)]

    def set(self, number: int) -> NDArray[np.uint32]:
        """A document's set; numbers of documents without notes have none and must not be asked for."""
        unit = self._unit(number)
        place, ends = self._place(unit, number), self._column(unit, "ends")
        values: NDArray[np.uint32] = self._column(unit, "sets")[ends[place - 1] if place else 0 : ends[place]]
        return values

    def _unit(self, number: int) -> int:
        return int(np.searchsorted(self._bases, number, side="right")) - 1

    def _place(self, unit: int, number: int) -> int:
        """Where a document's facts stand among those of its unit that have notes."""
        return int(np.searchsorted(self._column(unit, "fact.row"), number - self._bases[unit]))

    def _slice(self, unit: int, low: int, high: int, columns: Sequence[str]) -> dict[str, NDArray[Any]] | None:
        if not self._bytes(unit, "key"):
            return None
        key = self._column(unit, "key")
        first = int(np.searchsorted(key, np.uint64(low)))
        last = len(key) if high >= 1 << 64 else int(np.searchsorted(key, np.uint64(high)))
        number = self._column(unit, "row")[first:last].astype(np.int64) + self._bases[unit]
        alive = ~self.dead[number]
        table = {"key": np.asarray(key[first:last])[alive], "number": number[alive]}
        return table | {name: np.asarray(self._column(unit, name)[first:last])[alive] for name in columns}

    def _bytes(self, unit: int, column: str) -> int:
        path = self._folders[unit] / f"{self._name}.{column}.npy"
        return path.stat().st_size if path.is_file() else 0

    def _column(self, unit: int, column: str) -> Any:
        found = self._open.pop((unit, column), None)
        if found is None:
            found = mapped(self._folders[unit] / f"{self._name}.{column}.npy")
        self._open[unit, column] = found
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return found
