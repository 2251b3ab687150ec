"""The numbers of a curation: what came in, what each step removed and why, with examples, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StepCount:
    """One step: documents and characters in and out, by language too, removals and edits by reason with examples."""

    name: str
    documents_in: int = 0
    documents_out: int = 0
    characters_in: int = 0
    characters_out: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    edited: dict[str, int] = field(default_factory=dict)
    documents_by_lang: dict[str, int] = field(default_factory=dict)  # that came in; "" before a language is known
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], examples: int) -> None:
        """Add a unit's counts; of its examples as many as there is room for."""
        came = sum(row["by_lang"].values())
        self.documents_in += came
        self.documents_out += came - sum(row["removed"].values())
        self.characters_in += row["characters_in"]
        self.characters_out += row["characters_out"]
        for mine, theirs in (
            (self.removed, row["removed"]),
            (self.edited, row["edited"]),
            (self.documents_by_lang, row["by_lang"]),
        ):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
        for reason, shown in row["examples"].items():
            here = self.examples.setdefault(reason, [])
            here += shown[: examples - len(here)]


@dataclass
class Share:
    documents: int = 0
    characters: int = 0
    words: int = 0

    def add(self, documents: int, characters: int, words: int) -> None:
        self.documents += documents
        self.characters += characters
        self.words += words


@dataclass
class CurationReport:
    """report.json, with `asdict`. Words are counted as `words.count_words` does."""

    documents_in: int
    documents_out: int = 0
    steps: list[StepCount] = field(default_factory=list)
    kept_by_source: dict[str, Share] = field(default_factory=dict)
    kept_by_lang: dict[str, Share] = field(default_factory=dict)
    unreadable_count: int = 0
    unreadable_by_reason: dict[str, int] = field(default_factory=dict)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
