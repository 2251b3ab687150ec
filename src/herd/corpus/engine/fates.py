"""What has happened to a document on its way: the step that dropped it, the steps that changed it, and how it began."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from herd.corpus.engine.files import packed_lines
from herd.corpus.records import Document
from herd.corpus.step import Verdict

ALIVE = -1
SHOWN = 300  # characters of an example


@dataclass(frozen=True, slots=True)
class Edit:
    """A step changed the document: which one (its place in the list), why, and how many characters it had after."""

    step: int
    reason: str
    detail: str
    characters: int


@dataclass(slots=True)
class Fate:
    """`document` as it is now, or as it was when it was dropped by the step at place `dropped`."""

    document: Document
    file: str  # that it was read from
    characters: int  # when it came
    edits: list[Edit] = field(default_factory=list)
    dropped: int = ALIVE
    reason: str = ""
    detail: str = ""
    before: dict[int, str] = field(default_factory=dict)  # by step, the text's beginning before a change, for examples

    def take(self, step: int, verdict: Verdict) -> None:
        if not verdict.keep:
            self.dropped, self.reason, self.detail = step, verdict.reason, verdict.detail
        elif verdict.edited is not None:
            self.before[step] = self.document.text[:SHOWN]
            self.document = verdict.edited
            self.edits.append(Edit(step, verdict.reason, verdict.detail, len(self.document.text)))

    def taken_back(self, step: int, verdict: Verdict) -> None:
        """A step that saw the whole corpus has dropped it earlier than what is noted here."""
        self.edits = [change for change in self.edits if change.step < step]
        self.dropped, self.reason, self.detail = step, verdict.reason, verdict.detail

    def row(self) -> dict[str, Any]:
        edits = [[one.step, one.reason, one.detail, one.characters] for one in self.edits]
        fate = [self.file, self.dropped, self.reason, self.detail, self.characters, edits, self.before]
        return {**self.document.row(), "fate": fate}

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> Fate:
        file, dropped, reason, detail, characters, edits, before = row["fate"]
        changes = [Edit(*one) for one in edits]
        shown = {int(step): text for step, text in before.items()}
        return Fate(Document.from_row(row), file, characters, changes, dropped, reason, detail, shown)


class Counted:
    """Keeps the beginning of changed texts for the first few of each reason only: the rest would double the files."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[tuple[int, str], int] = {}

    def trim(self, fate: Fate) -> None:
        for change in fate.edits:
            key = (change.step, change.reason)
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] > self._most:
                fate.before.pop(change.step, None)


def write_fates(handle: IO[bytes], fates: Sequence[Fate]) -> None:
    for fate in fates:
        handle.write(encoded(fate.row()))


def encoded(row: Mapping[str, Any]) -> bytes:
    """A JSON line. Half a surrogate pair becomes a question mark, in every step's eyes from the first pass on."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def read_fates(path: Path) -> Iterator[Fate]:
    for line in packed_lines(path):
        yield Fate.from_row(json.loads(line))


def renamed(fate: Fate, rank: int) -> None:
    """The id of a document whose id is taken gets a suffix: ~2, ~3, ..."""
    if rank > 1:
        fate.document = replace(fate.document, id=f"{fate.document.id}~{rank}")
