"""What a curation step is: a name and a judgement. Counting, timing and examples are the pipeline's work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from herd.corpus.records import Document


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
class CorpusStep(Protocol):
    """A step that must see everything before it can judge anything: duplicates, lines seen too often."""

    @property
    def name(self) -> str: ...

    def judge_all(self, documents: Sequence[Document]) -> Iterable[Verdict]:
        """One verdict for each document, in their order."""
