"""Repetition inside one document, after Rae et al. 2021 (Gopher), appendix A.1.1, table A1.

Fractions are of characters in words. An n-gram that occurs once is no repetition. Short documents pass: the rules were
made for pages of at least 50 words, and two equal words out of four say nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from herd.corpus.records import CODE, Document
from herd.corpus.step import KEEP, Verdict, drop
from herd.corpus.words import Units, ngram_hashes, units


@cache
def limits() -> dict[str, Any]:
    limits: dict[str, Any] = json.loads((files("herd.corpus") / "data/repetition.json").read_text("utf-8"))
    return limits


class Repetition:
    """Duplicate lines and paragraphs, the most frequent short n-gram, and text covered by repeated long n-grams."""

    name = "repetition"

    def __init__(self, min_words: int = 50, trusted: Sequence[str] = ()) -> None:
        self._min_words, self._trusted = min_words, frozenset(trusted)

    def judge(self, document: Document) -> Verdict:
        if document.lang == CODE or document.source in self._trusted:
            return KEEP
        words = units(document.text)
        if len(words) < self._min_words:
            return KEEP
        for reason, value, limit in self._measures(document.text, words):
            if value > limit:
                return drop(reason, f"{value:.2f}, at most {limit:.2f}")
        return KEEP

    def _measures(self, text: str, words: Units) -> list[tuple[str, float, float]]:
        table = limits()
        found = []
        for name, separator in (("paragraph", "\n\n"), ("line", "\n")):
            count, characters = duplicate_fractions(text, separator)
            found.append((f"duplicate_{name}s", count, table[f"duplicate_{name}s"]))
            found.append((f"duplicate_{name}_characters", characters, table[f"duplicate_{name}_characters"]))
        for n, limit in table["top_ngram_characters"].items():
            found.append((f"top_{n}_gram", top_ngram_fraction(words, int(n)), limit))
        for n, limit in table["duplicate_ngram_characters"].items():
            covered = duplicate_ngram_fraction(words, int(n))
            found.append((f"duplicate_{n}_grams", covered, limit))
            if covered <= min(table["duplicate_ngram_characters"].values()):
                break  # longer n-grams cover a part of what shorter ones cover
        return found


def duplicate_fractions(text: str, separator: str) -> tuple[float, float]:
    """(fraction of the parts that repeat an earlier one, fraction of the characters in them)."""
    parts = [part for part in (piece.strip() for piece in text.split(separator)) if part]
    seen = Counter(parts)
    total = sum(map(len, parts))
    repeated = sum(count - 1 for count in seen.values())
    characters = sum((count - 1) * len(part) for part, count in seen.items())
    return repeated / max(1, len(parts)), characters / max(1, total)


def top_ngram_fraction(words: Units, n: int) -> float:
    """Fraction of the characters inside the most frequent n-gram's occurrences; 0 if it occurs once."""
    grams, first, counts = np.unique(ngram_hashes(words.hashes, n), return_index=True, return_counts=True)
    if not len(grams) or counts.max() < 2:
        return 0.0
    ends = np.concatenate(([0], np.cumsum(words.lengths)))
    lengths = ends[np.minimum(first + n, len(words))] - ends[first]
    most = counts == counts.max()
    return float(counts.max() * lengths[most].max() / ends[-1])


def duplicate_ngram_fraction(words: Units, n: int) -> float:
    """Fraction of the characters that stand in an n-gram which occurred before; each character counts once."""
    grams = ngram_hashes(words.hashes, n)
    _, first = np.unique(grams, return_index=True)
    repeated = np.ones(len(grams), dtype=bool)
    repeated[first] = False
    starts = np.flatnonzero(repeated)
    edges: NDArray[np.int64] = np.zeros(len(words) + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, np.minimum(starts + n, len(words)), -1)
    covered = np.cumsum(edges[:-1]) > 0
    return float(words.lengths[covered].sum() / max(1, words.lengths.sum()))
