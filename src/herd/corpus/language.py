"""Which language a text is in, and whether that is one of ours.

A few passages spread over the text are identified (`identify.py`) and their probabilities averaged by length, so a page
is what most of it is. Passages of code are skipped. A declared language is believed unless the text clearly
contradicts it: identification of a line or two is unsure, above all between neighbours (Spanish and Galician, Hindi
and Nepali).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from herd.corpus.identify import languages, probabilities
from herd.corpus.records import CODE, LANGUAGES, MULTIPLE, Document
from herd.corpus.step import KEEP, Verdict, drop, edit

_PASSAGES, _PASSAGE = 5, 220  # passages, characters each
_MIN_LETTERS = 12  # under this a passage is not judged
_TOGETHER = 2000  # documents
_SCRIPTS = {"hi": ("\u0900", "\u097f"), "th": ("\u0e00", "\u0e7f")}  # Unicode blocks
_MIN_SCRIPT = 0.1  # of the letters: romanised Hindi is in no list of languages, and is not what its label promises
_FENCED = re.compile(r"^ *(```|~~~).*?(^ *\1|\Z)", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"https?://\S+|<[^<>\n]{1,200}>|`[^`\n]+`|\{\{.*?\}\}")


def prose(text: str) -> str:
    """The text without code, links and markup, of its first quarter of a million characters."""
    return _NOT_PROSE.sub(" ", _FENCED.sub("\n", text[: 1 << 18]))


def passages(text: str) -> list[str]:
    """Up to five passages of prose, spread evenly over the text."""
    if len(text) <= _PASSAGE and "`" not in text and "<" not in text:
        return [text]
    words = prose(text)
    if len(words) <= _PASSAGES * _PASSAGE:
        return [words[start : start + _PASSAGE] for start in range(0, len(words), _PASSAGE)]
    stride = (len(words) - _PASSAGE) // (_PASSAGES - 1)
    return [words[start : start + _PASSAGE] for start in range(0, stride * _PASSAGES, stride)]


def own_script(text: str, lang: str) -> float:
    """Share of the letters that are in the script of a language with a script of its own; 1.0 for the Latin ones."""
    if lang not in _SCRIPTS:
        return 1.0
    letters = [letter for passage in passages(text) for letter in passage if letter.isalpha()]
    if len(letters) < _MIN_LETTERS:
        return 1.0
    low, high = _SCRIPTS[lang]
    return sum(low <= letter <= high for letter in letters) / len(letters)


def identified(texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
    """For each text the probability of each of `languages()`; None where there are too few letters to tell."""
    chosen, weights, owners = [], [], []
    for owner, text in enumerate(texts):
        for passage in passages(text):
            letters = sum(map(str.isalpha, passage))
            if letters >= _MIN_LETTERS:
                chosen.append(passage)
                weights.append(letters)
                owners.append(owner)
    found: list[NDArray[np.float32] | None] = [None] * len(texts)
    totals = np.bincount(owners, weights, minlength=len(texts)) if owners else np.zeros(len(texts))
    for owner, weight, row in zip(owners, weights, probabilities(chosen), strict=True):
        share = row * np.float32(weight / totals[owner])
        before = found[owner]
        found[owner] = share if before is None else before + share
    return found


class Language:
    """Drop what is in none of the eight languages, or not in the one it is declared to be; label the undeclared."""

    name = "language"

    def __init__(self, confidence: float = 0.5, doubt: float = 0.2) -> None:
        self._confidence, self._doubt = confidence, doubt

    def judge_many(self, documents: Sequence[Document]) -> Iterable[Verdict]:
        for first in range(0, len(documents), _TOGETHER):
            group = documents[first : first + _TOGETHER]
            texts = ["" if document.lang in (CODE, MULTIPLE) else document.text for document in group]
            for document, found in zip(group, identified(texts), strict=True):
                table = None if found is None else dict(zip(languages(), found.tolist(), strict=True))
                yield self._judge(document, table)

    def _judge(self, document: Document, found: dict[str, float] | None) -> Verdict:
        declared = document.lang
        if declared in (CODE, MULTIPLE):
            return KEEP
        if declared and declared not in LANGUAGES:
            return drop("other_language", f"declared {declared}")
        if found is None:
            return KEEP if declared else edit(replace(document, lang="en"), "assumed_en", "too few letters to tell")
        best = max(found, key=found.__getitem__)
        if declared:
            script = own_script(document.text, declared)
            if script < _MIN_SCRIPT:
                return drop("other_script", f"declared {declared}, {script:.0%} of the letters are in its script")
            if best == declared or found[declared] >= self._doubt or found[best] < self._confidence:
                return KEEP
            reason = "not_as_declared" if best in LANGUAGES else "other_language"
            return drop(reason, f"declared {declared}, reads as {best} ({found[best]:.2f})")
        ours = max(LANGUAGES, key=found.__getitem__)
        if best != ours and found[best] >= self._confidence:
            return drop("other_language", f"reads as {best} ({found[best]:.2f})")
        return edit(replace(document, lang=ours), f"labelled_{ours}", f"{found[ours]:.2f}")
