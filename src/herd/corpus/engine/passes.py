"""The two passes over a unit: `mark` judges its documents as far as it can and notes what the corpus must decide,
`finish` applies what was decided and writes what is kept and what is removed. Each writes whole or not at all.

The steps are cut into rounds. A step that only drops holds nobody up: the steps behind it judge its documents too, and
what they found is forgotten for those that it drops. A round ends at a step that changes texts by what the corpus
decides (repeated lines); with the published list there is one, so every document is read twice and written twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from herd.corpus.duplicates import hashes
from herd.corpus.engine.decisions import Decisions
from herd.corpus.engine.fates import ALIVE, Counted, Fate, encoded, read_fates, renamed, write_fates
from herd.corpus.engine.files import packed_file, write_packed
from herd.corpus.engine.job import Job
from herd.corpus.engine.lineage import keys_of, line_of
from herd.corpus.engine.notes import NoteWriter
from herd.corpus.engine.tally import Tally
from herd.corpus.records import Document, Unreadable
from herd.corpus.step import CorpusStep, ManyStep, Noted, Step, Verdict
from herd.files import atomic_file, atomic_folder, read_json, write_json

_TOGETHER, _CHARACTERS = 1000, 1 << 22  # documents, or characters, that go through the steps together
_SEGMENT, _SEGMENT_CHARACTERS = 20_000, 1 << 26  # whose notes are held in memory, sorted, and written
_PART_LEVEL = 1  # of gzip: these files are read once and thrown away

AnyStep = Step | ManyStep | CorpusStep


def rounds(steps: Sequence[AnyStep]) -> list[tuple[int, int]]:
    """[first, last) of the steps of each round; the last round ends with no decision."""
    cuts = [place + 1 for place, step in enumerate(steps) if isinstance(step, CorpusStep) and step.edits]
    later = range(cuts[-1] if cuts else 0, len(steps))
    if any(isinstance(steps[place], CorpusStep) for place in later) or not cuts:
        cuts.append(len(steps))
    edges = [0, *cuts, len(steps)]
    return list(pairwise(edges))


def mark(job: Job, round_: int, unit: int) -> None:
    """A round of a unit: documents through its steps, with the notes of those that ask for them."""
    target = job.unit_folder(round_, unit)
    if job.is_done(target, round_, unit):
        return
    aside: list[Unreadable] = []
    with atomic_folder(target) as folder:
        counts = []
        for number, segment in enumerate(_segments(_incoming(job, round_, unit, aside))):
            (folder / f"{number:05d}").mkdir()
            counts.append(_write_segment(job, round_, folder / f"{number:05d}", segment))
        write_json(folder / "unreadable.json", [item.row() for item in aside])
        write_json(folder / "done.json", {"made": job.fingerprint(round_, unit), "documents": counts})


def finish(job: Job, unit: int) -> None:
    """The unit's kept and removed documents, and its counts."""
    last = len(job.rounds) - 1
    target = job.out / "counts" / f"{unit:05d}.json"
    made = job.fingerprint(last, unit)
    if target.is_file() and read_json(target)["made"] == made:
        return
    tally = Tally(len(job.steps), job.settings.examples)
    name, names = f"{unit:05d}.jsonl.gz", [step.name for step in job.steps]
    keys = [np.empty(0, np.uint64)]
    with (
        atomic_file(job.out / "kept" / name) as kept_file,
        atomic_file(job.out / "removed" / name) as removed_file,
        atomic_file(job.out / "lineage" / name) as lineage_file,
        packed_file(kept_file) as kept,
        packed_file(removed_file) as removed,
        packed_file(lineage_file) as lineage,
    ):
        for batch in _batches(_incoming(job, last, unit, [])):
            _judge(job, last, batch, 0, {})
            lines = [line_of(fate, names) for fate in batch]
            keys.append(keys_of(lines))
            for fate, line in zip(batch, lines, strict=True):
                tally.add(fate)
                lineage.write(encoded(line))
                if fate.dropped == ALIVE:
                    kept.write(encoded(fate.document.row()))
                else:
                    why = {"step": names[fate.dropped], "reason": fate.reason, "detail": fate.detail}
                    removed.write(encoded({**fate.document.row(), **why}))
    with atomic_file(job.out / "index" / f"{unit:05d}.npy") as handle:
        np.save(handle, np.unique(np.concatenate(keys)))
    aside = read_json(job.unit_folder(0, unit) / "unreadable.json")
    write_packed(job.out / "unreadable" / name, map(encoded, aside))
    reasons = Counter(item["reason"] for item in aside)
    counts = {"steps": tally.counts(), "unreadable": dict(reasons), "shown": aside[:20]}
    write_json(target, {"made": made, **counts})  # last: what stands beside it is whole


def _incoming(job: Job, round_: int, unit: int, aside: list[Unreadable]) -> Iterator[Fate]:
    """The unit's documents as they enter a round."""
    if round_ == 0:
        for file, item in job.source.read(unit):
            if isinstance(item, Unreadable):
                aside.append(item)
            else:
                yield Fate(_clean(item), file, len(item.text))
        return
    decisions = Decisions.open(job, round_ - 1, unit)
    for segment in job.segments(round_ - 1, unit):
        number = decisions.base(segment)
        touched = decisions.touched(segment)
        for row, fate in enumerate(read_fates(segment / "fates.jsonl.gz")):
            if round_ == 1:
                renamed(fate, decisions.rank(number + row))
            if row in touched:
                decisions.apply(fate, number + row)
            yield fate


def _clean(document: Document) -> Document:
    """Documents are written as UTF-8: half of a surrogate pair is replaced before anything is judged or compared."""
    if document.text.isascii() and document.id.isascii() and document.url.isascii():
        return document
    text = document.text.encode("utf-8", "replace").decode("utf-8")
    name, url = (word.encode("utf-8", "backslashreplace").decode("utf-8") for word in (document.id, document.url))
    return replace(document, id=name, text=text, url=url)


def _segments(fates: Iterator[Fate]) -> Iterator[Iterable[list[Fate]]]:
    """Runs of batches that are written as one."""
    held: list[list[Fate]] = []
    documents = characters = 0
    for batch in _batches(fates):
        held.append(batch)
        documents += len(batch)
        characters += sum(len(fate.document.text) for fate in batch)
        if documents >= _SEGMENT or characters >= _SEGMENT_CHARACTERS:
            yield held
            held, documents, characters = [], 0, 0
    if held:
        yield held


def _batches(fates: Iterator[Fate]) -> Iterator[list[Fate]]:
    batch: list[Fate] = []
    characters = 0
    for fate in fates:
        batch.append(fate)
        characters += len(fate.document.text)
        if len(batch) >= _TOGETHER or characters >= _CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write_segment(job: Job, round_: int, folder: Path, batches: Iterable[list[Fate]]) -> int:
    writers = {place: NoteWriter() for place in job.deciding(round_)}
    ids: list[str] = []
    shown = Counted(job.settings.examples)
    with open(folder / "fates.jsonl.gz", "wb") as handle, packed_file(handle, _PART_LEVEL) as packed:
        for batch in batches:
            _judge(job, round_, batch, len(ids), writers)
            ids += [fate.document.id for fate in batch]
            for fate in batch:
                shown.trim(fate)
            write_fates(packed, batch)
    for place, writer in writers.items():
        writer.save(folder, job.label(place))
    _save_ids(folder, ids)
    return len(ids)


def _save_ids(folder: Path, ids: Sequence[str]) -> None:
    packed = [name.encode("utf-8", "backslashreplace") for name in ids]
    key, _ = hashes(packed)
    order = np.argsort(key, kind="stable")
    np.save(folder / "ids.key.npy", key[order])
    np.save(folder / "ids.row.npy", order.astype(np.uint32))
    np.save(folder / "ids.npy", np.frombuffer(b"".join(packed), np.uint8))
    np.save(folder / "ids.ends.npy", np.cumsum([len(name) for name in packed], dtype=np.int64))


def _judge(job: Job, round_: int, batch: list[Fate], first: int, writers: dict[int, NoteWriter]) -> None:
    """Lead the batch through the round's steps; `first` is the row of its first document in the segment."""
    begin, end = job.rounds[round_]
    for place in range(begin, end):
        step = job.steps[place]
        rows = [row for row, fate in enumerate(batch) if fate.dropped == ALIVE]
        documents = [batch[row].document for row in rows]
        if isinstance(step, CorpusStep):
            if documents:
                writers[place].add(_at_rows(step.notes(documents, 0), rows, first))
            continue
        for row, verdict in zip(rows, _verdicts(step, documents), strict=True):
            batch[row].take(place, verdict)


def _at_rows(noted: Noted, rows: Sequence[int], first: int) -> Noted:
    """Notes speak of places among the living documents; on disk they speak of rows of the segment."""
    where = np.asarray(rows, np.uint32) + np.uint32(first)
    facts = {name: where[values] if name == "row" else values for name, values in noted.facts.items()}
    return replace(noted, row=where[noted.row], facts=facts)


def _verdicts(step: Step | ManyStep, documents: Sequence[Document]) -> Iterable[Verdict]:
    return step.judge_many(documents) if isinstance(step, ManyStep) else map(step.judge, documents)
