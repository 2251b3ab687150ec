"""Counts of a curation that add up: made unit by unit, and the report is their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from herd.corpus.engine.fates import ALIVE, SHOWN, Fate
from herd.corpus.report import Share, StepCount
from herd.corpus.words import count_words


class Tally:
    """Counts of one unit. What each step saw is kept as differences between it and the step before."""

    def __init__(self, steps: int, examples: int) -> None:
        self._steps, self._most = steps, examples
        self._came: dict[str, list[int]] = {}  # by language: documents in, less those into the step before
        self._characters = [0] * (steps + 1)
        self._removed: list[Counter[str]] = [Counter() for _ in range(steps)]
        self._removed_characters = [0] * steps
        self._edited: list[Counter[str]] = [Counter() for _ in range(steps)]
        self._edited_characters = [0] * steps
        self._examples: list[dict[str, list[dict[str, str]]]] = [{} for _ in range(steps)]
        self._by_source: dict[str, Share] = {}
        self._by_lang: dict[str, Share] = {}

    def add(self, fate: Fate) -> None:
        document = fate.document
        left = self._steps if fate.dropped == ALIVE else fate.dropped + 1
        came = self._came.setdefault(document.lang, [0] * (self._steps + 1))
        came[0] += 1
        came[left] -= 1
        characters = fate.characters
        self._characters[0] += characters
        for change in fate.edits:
            self._edited[change.step][change.reason] += 1
            self._edited_characters[change.step] += change.characters - characters
            self._characters[change.step + 1] += change.characters - characters
            characters = change.characters
            self._show(change.step, change.reason, change.detail, fate.before.get(change.step), fate)
        self._characters[left] -= characters
        if fate.dropped != ALIVE:
            self._removed[fate.dropped][fate.reason] += 1
            self._removed_characters[fate.dropped] += characters
            self._show(fate.dropped, fate.reason, fate.detail, document.text, fate)
            return
        words = count_words(document.text)
        for shares, key in ((self._by_source, document.source), (self._by_lang, document.lang)):
            shares.setdefault(key, Share()).add(1, len(document.text), words)

    def _show(self, step: int, reason: str, detail: str, text: str | None, fate: Fate) -> None:
        shown = self._examples[step].setdefault(reason, [])
        if text is not None and len(shown) < self._most:
            one = {"id": fate.document.id, "source": fate.document.source, "detail": detail, "text": text[:SHOWN]}
            shown.append(one)

    def counts(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        came = {lang: list(accumulate(values)) for lang, values in sorted(self._came.items())}
        characters = list(accumulate(self._characters))
        steps = []
        for place in range(self._steps):
            gone = self._removed_characters[place]
            steps.append(
                {
                    "by_lang": {lang: values[place] for lang, values in came.items()},
                    "characters_in": characters[place],
                    "characters_out": characters[place] - gone + self._edited_characters[place],
                    "removed": dict(self._removed[place]),
                    "edited": dict(self._edited[place]),
                    "examples": self._examples[place],
                }
            )
        shares = {
            "kept_by_source": {key: vars(share) for key, share in self._by_source.items()},
            "kept_by_lang": {key: vars(share) for key, share in self._by_lang.items()},
        }
        return {"steps": steps, **shares, "came": {lang: values[0] for lang, values in came.items()}}


def total(names: Iterable[str], units: Iterable[Mapping[str, Any]], examples: int) -> tuple[list[StepCount], Any]:
    """(a StepCount for each step, {"kept_by_source": ..., "kept_by_lang": ...}) out of the units' counts, in order."""
    steps = [StepCount(name) for name in names]
    shares: dict[str, dict[str, Share]] = {"kept_by_source": {}, "kept_by_lang": {}}
    for unit in units:
        for count, row in zip(steps, unit["steps"], strict=True):
            count.add(row, examples)
        for kind, found in shares.items():
            for key, share in unit[kind].items():
                found.setdefault(key, Share()).add(**share)
    return steps, shares
