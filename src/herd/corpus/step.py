"""What a curation step is: a name and a judgement. Counting, examples, files and resuming are the engine's work.

A step that judges a document by itself has `judge`; one that is faster with many at once has `judge_many`. A step that
must see the whole corpus has two halves: `notes` is computed where the document is read and lies on disk, `decide`
reads the notes of all documents, in buckets by key, so that its memory does not grow with the corpus (notes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from herd.corpus.records import Document

if TYPE_CHECKING:
    from herd.corpus.engine.notes import Notes
    from herd.progress import Progress


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep or drop, with a reason. `edited` is the changed document when the step keeps it in another form.

    `reason` is a short name that is counted ("too_short"); `detail` is for a reader ("4 words, at least 10").
    """

    keep: bool
    reason: str = ""
    detail: str = ""
    edited: Document | None = None


KEEP = Verdict(True)


def drop(reason: str, detail: str = "") -> Verdict:
    return Verdict(False, reason, detail)


def edit(document: Document, reason: str, detail: str = "") -> Verdict:
    return Verdict(True, reason, detail, document)


@runtime_checkable
class Step(Protocol):
    """A step that sees one document at a time."""

    @property
    def name(self) -> str: ...

    def judge(self, document: Document) -> Verdict: ...


@runtime_checkable
class ManyStep(Protocol):
    """A step that judges each document by itself, and many at once in less time."""

    @property
    def name(self) -> str: ...

    def judge_many(self, documents: Sequence[Document]) -> Iterable[Verdict]:
        """One verdict for each document, in their order."""


@dataclass(frozen=True)
class Noted:
    """Notes of a few documents. `row` says which of them a note is of (uint32); `key` (uint64) what it is grouped by.

    `columns` go with the notes, row by row; `facts` have one value a document, `sets` one array a document.
    """

    row: NDArray[np.uint32]
    key: NDArray[np.uint64]
    columns: Mapping[str, NDArray[Any]]
    facts: Mapping[str, NDArray[Any]]
    sets: Sequence[NDArray[np.uint32]] | None = None


@dataclass(frozen=True)
class Found:
    """What a step decided: documents to drop, by number, each with another document and a value for its detail.

    `keys` is for a step that edits: the keys that it acts on, sorted.
    """

    dropped: NDArray[np.int64]
    of: NDArray[np.int64]
    value: NDArray[Any]
    keys: NDArray[np.uint64]

    @staticmethod
    def none() -> Found:
        return Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.uint64))


@runtime_checkable
class CorpusStep(Protocol):
    """A step that must see everything before it can judge anything: duplicates, lines seen too often."""

    @property
    def name(self) -> str: ...

    @property
    def edits(self) -> bool:
        """Whether it changes texts: steps after it wait for its decision; they do not wait for one that only drops."""

    def notes(self, documents: Sequence[Document], first: int) -> Noted:
        """Notes of documents that have the numbers from `first` on in their unit."""

    def decide(self, notes: Notes, progress: Progress) -> Found: ...

    def verdict(self, document: Document, of: str, value: Any, found: Found) -> Verdict:
        """Of a document that was decided on: `of` is the other document's id. A step that edits is asked for every
        document that has one of its keys."""
