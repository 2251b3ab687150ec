"""The numbers of a curation: what came in, what each step removed and why, with examples, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from herd.corpus.records import Document, Unreadable
from herd.corpus.step import Verdict
from herd.corpus.words import count_words

_EXAMPLE = 300  # characters


@dataclass
class StepCount:
    """One step: documents and characters in and out, removals and edits by reason, seconds, examples by reason."""

    name: str
    documents_in: int = 0
    documents_out: int = 0
    characters_in: int = 0
    characters_out: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    edited: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, document: Document, verdict: Verdict, examples: int) -> None:
        self.documents_in += 1
        self.characters_in += len(document.text)
        if verdict.keep:
            self.documents_out += 1
            self.characters_out += len((verdict.edited or document).text)
            if verdict.edited is None:
                return
        counts = self.edited if verdict.keep else self.removed
        counts[verdict.reason] = counts.get(verdict.reason, 0) + 1
        shown = self.examples.setdefault(verdict.reason, [])
        if len(shown) < examples:
            text = document.text[:_EXAMPLE]
            shown.append({"id": document.id, "source": document.source, "detail": verdict.detail, "text": text})


@dataclass
class Share:
    documents: int = 0
    characters: int = 0
    words: int = 0


@dataclass
class CurationReport:
    """report.json, with `asdict`. Words are counted as `words.count_words` does."""

    documents_in: int
    documents_out: int = 0
    seconds: float = 0.0
    steps: list[StepCount] = field(default_factory=list)
    kept_by_source: dict[str, Share] = field(default_factory=dict)
    kept_by_lang: dict[str, Share] = field(default_factory=dict)
    unreadable_count: int = 0
    unreadable_by_reason: dict[str, int] = field(default_factory=dict)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count_unreadable(self, items: Iterable[Unreadable]) -> None:
        self.unreadable_by_reason = dict(Counter(item.reason for item in items).most_common())

    def finish(self, kept: Sequence[Document]) -> None:
        self.documents_out = len(kept)
        self.seconds = round(self.seconds + sum(step.seconds for step in self.steps), 3)
        for document in kept:
            words = count_words(document.text)
            for shares, key in ((self.kept_by_source, document.source), (self.kept_by_lang, document.lang)):
                share = shares.setdefault(key, Share())
                share.documents += 1
                share.characters += len(document.text)
                share.words += words
