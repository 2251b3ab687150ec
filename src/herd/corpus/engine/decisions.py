"""What a round decided about documents, on disk: made once from all notes, asked for by number, unit after unit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.engine.fates import ALIVE, Fate
from herd.corpus.engine.job import Job
from herd.corpus.engine.notes import OPEN, Notes, mapped
from herd.corpus.lines import among
from herd.corpus.minhash import equal_runs
from herd.corpus.step import CorpusStep, Found
from herd.files import atomic_folder, read_json, write_json
from herd.progress import Progress

_PARTS = ("dropped", "of", "value", "keys")


def decide(job: Job, round_: int, progress: Progress) -> None:
    """Let the round's steps decide, in their order; a document that one drops is gone for those behind it."""
    target = job.work / f"decided-{round_}"
    made = job.fingerprint(round_ + 1, 0)
    if target.is_dir() and read_json(target / "done.json")["made"] == made:
        return
    folders, bases = _segments(job, round_)
    dead = np.zeros(bases[-1], np.bool_)
    with atomic_folder(target) as folder:
        if round_ == 0:
            _save_ranks(folder, Notes(folders, bases, "ids", job.memory), progress)
        for place in job.deciding(round_):
            step = job.steps[place]
            assert isinstance(step, CorpusStep)
            notes = Notes(folders, bases, job.label(place), job.memory)
            notes.dead = dead
            found = step.decide(notes, progress)
            dead[found.dropped] = True
            for part in _PARTS:
                np.save(folder / f"{job.label(place)}.{part}.npy", getattr(found, part))
        write_json(folder / "segments.json", [[str(path.relative_to(job.work)) for path in folders], bases])
        write_json(folder / "done.json", {"made": made})


def _segments(job: Job, round_: int) -> tuple[list[Path], list[int]]:
    folders: list[Path] = []
    bases = [0]
    for unit in range(len(job.source)):
        done = read_json(job.unit_folder(round_, unit) / "done.json")
        for number, documents in enumerate(done["documents"]):
            folders.append(job.unit_folder(round_, unit) / f"{number:05d}")
            bases.append(bases[-1] + documents)
    return folders, bases


def _save_ranks(folder: Path, notes: Notes, progress: Progress) -> None:
    """Which documents have an id that an earlier one has, and the how manieth they are with it."""
    numbers: list[int] = []
    ranks: list[int] = []
    for table in notes.buckets():
        for low, high in equal_runs(table["key"]):
            numbers += table["number"][low + 1 : high].tolist()
            ranks += range(2, high - low + 1)
    order = np.argsort(np.array(numbers, np.int64))
    np.save(folder / "ranked.npy", np.array(numbers, np.int64)[order])
    np.save(folder / "ranks.npy", np.array(ranks, np.int64)[order])
    if numbers:
        progress.note(f"{len(numbers):,} documents had an id that was taken; they got a suffix ~2, ~3, ...")


_opened: dict[str, Decisions] = {}


class Decisions:
    """The decisions of a round, opened in a worker."""

    def __init__(self, job: Job, round_: int) -> None:
        self._job, self._folder = job, job.work / f"decided-{round_}"
        names, bases = read_json(self._folder / "segments.json")
        self._segments = [job.work / name for name in names]
        self._places = {path: number for number, path in enumerate(self._segments)}
        self._bases = np.asarray(bases, np.int64)
        self._found = {place: self._load(job.label(place)) for place in job.deciding(round_)}
        first = job.work / "decided-0"
        self._ranked, self._ranks = mapped(first / "ranked.npy"), mapped(first / "ranks.npy")
        self._ids: OrderedDict[int, tuple[NDArray[Any], NDArray[Any]]] = OrderedDict()

    @staticmethod
    def open(job: Job, round_: int, unit: int) -> Decisions:
        """Kept for the next unit: opening reads a list of all segments."""
        made = f"{job.work} {round_} {job.fingerprint(round_ + 1, unit)}"
        if made not in _opened:
            _opened.clear()
            _opened[made] = Decisions(job, round_)
        return _opened[made]

    def base(self, segment: Path) -> int:
        return int(self._bases[self._places[segment]])

    def touched(self, segment: Path) -> set[int]:
        """Rows of a segment that a decision speaks of."""
        number = self._places[segment]
        low, high = self._bases[number : number + 2]
        rows: set[int] = set()
        for place, found in self._found.items():
            first, last = np.searchsorted(found.dropped, [low, high])
            rows.update((found.dropped[first:last] - low).tolist())
            if len(found.keys):
                rows.update(self._with_keys(segment, self._job.label(place), int(low), found))
        return rows

    def apply(self, fate: Fate, number: int) -> None:
        """Let the decisions act in the order of their steps; a document that is gone before is left as it is."""
        for place, found in self._found.items():
            if fate.dropped != ALIVE and fate.dropped < place:
                return
            step = self._job.steps[place]
            assert isinstance(step, CorpusStep)
            if step.edits:
                fate.take(place, step.verdict(fate.document, "", number, found))
                continue
            at = int(np.searchsorted(found.dropped, number))
            if at < len(found.dropped) and found.dropped[at] == number:
                verdict = step.verdict(fate.document, self.id_of(int(found.of[at])), found.value[at], found)
                fate.taken_back(place, verdict)
                return

    def rank(self, number: int) -> int:
        """1, or the how manieth document has this one's id."""
        at = int(np.searchsorted(self._ranked, number))
        return int(self._ranks[at]) if at < len(self._ranked) and self._ranked[at] == number else 1

    def id_of(self, number: int) -> str:
        segment = int(np.searchsorted(self._bases, number, side="right")) - 1
        row = number - int(self._bases[segment])
        text, ends = self._ids_of(segment)
        name = bytes(text[int(ends[row - 1]) if row else 0 : int(ends[row])]).decode("utf-8", "replace")
        already = "round-0" not in self._segments[segment].parts  # a later round's ids have their suffix
        rank = self.rank(number)
        return name if already or rank == 1 else f"{name}~{rank}"

    def _ids_of(self, segment: int) -> tuple[NDArray[Any], NDArray[Any]]:
        folder = self._segments[segment]
        found = self._ids.pop(segment, None) or (mapped(folder / "ids.npy"), mapped(folder / "ids.ends.npy"))
        self._ids[segment] = found
        if len(self._ids) > OPEN:
            self._ids.popitem(last=False)
        return found

    def _with_keys(self, segment: Path, name: str, low: int, found: Found) -> Iterator[int]:
        path = segment / f"{name}.key.npy"
        if not path.is_file():
            return
        keys, rows = mapped(path), mapped(segment / f"{name}.row.npy")
        wanted = among(keys, rows.astype(np.int64) + low)
        at = np.minimum(np.searchsorted(found.keys, wanted), len(found.keys) - 1)
        yield from np.unique(rows[found.keys[at] == wanted]).tolist()

    def _load(self, name: str) -> Found:
        return Found(*(mapped(self._folder / f"{name}.{part}.npy") for part in _PARTS))
