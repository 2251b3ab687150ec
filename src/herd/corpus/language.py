"""Which language a text is in, and whether that is one of ours.

py3langid (naive Bayes over byte n-grams, its model is inside the package) reads a few passages spread over the text;
their probabilities are averaged by length, so a page is what most of it is. Passages of code are skipped.
A declared language is believed unless the text clearly contradicts it: identification of a line or two is unsure, above
all between neighbours (Spanish and Galician, Hindi and Nepali).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from herd.corpus.records import CODE, LANGUAGES, Document
from herd.corpus.step import KEEP, Verdict, drop, edit

# Candidates beside our eight: the languages of the larger Wikipedias. The creoles and dialects that py3langid also
# knows (pcm, bcl, ext, an, lij, ...) take short English, Spanish and Italian lines away and are left out.
OTHERS = """
ar az be bg bn bs ca cs cy da el eo et eu fa fi ga gl gu he hr hu hy id is ja ka kk km kn ko la lt lv mk ml mr ms my
ne nl no pa pl ps ro ru sk sl sq sr sv sw ta te tl tr uk ur uz vi zh
"""

_PASSAGES, _PASSAGE = 5, 220  # passages, characters each
_MIN_LETTERS = 12  # under this a text is not judged
_FENCED = re.compile(r"^ *(```|~~~).*?(^ *\1|\Z)", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"https?://\S+|<[^<>\n]{1,200}>|`[^`\n]+`|\{\{.*?\}\}")


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 0.9 s to load: only when needed

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*LANGUAGES, *OTHERS.split()])
    return identifier


def passages(text: str) -> list[str]:
    """Up to five passages of prose, spread evenly over the text."""
    if len(text) <= _PASSAGE and "`" not in text and "<" not in text:
        return [text]
    prose = _NOT_PROSE.sub(" ", _FENCED.sub("\n", text[: 1 << 18]))
    if len(prose) <= _PASSAGES * _PASSAGE:
        return [prose[start : start + _PASSAGE] for start in range(0, len(prose), _PASSAGE)]
    stride = (len(prose) - _PASSAGE) // (_PASSAGES - 1)
    return [prose[start : start + _PASSAGE] for start in range(0, stride * _PASSAGES, stride)]


def probabilities(text: str) -> dict[str, float]:
    """Probability of each candidate language; empty when there are too few letters to tell."""
    total: dict[str, float] = {}
    weight = 0
    for passage in passages(text):
        letters = sum(map(str.isalpha, passage))
        if letters >= _MIN_LETTERS:
            weight += letters
            for lang, probability in _identifier().rank(passage):
                total[lang] = total.get(lang, 0.0) + letters * probability
    return {lang: value / weight for lang, value in total.items()}


class Language:
    """Drop what is in none of the eight languages, or not in the one it is declared to be; label the undeclared."""

    name = "language"

    def __init__(self, confidence: float = 0.5, doubt: float = 0.2) -> None:
        self._confidence, self._doubt = confidence, doubt

    def judge(self, document: Document) -> Verdict:
        declared = document.lang
        if declared == CODE:
            return KEEP
        if declared and declared not in LANGUAGES:
            return drop("other_language", f"declared {declared}")
        found = probabilities(document.text)
        if not found:
            return KEEP if declared else edit(replace(document, lang="en"), "assumed_en", "too few letters to tell")
        best = max(found, key=found.__getitem__)
        if declared:
            if best == declared or found[declared] >= self._doubt or found[best] < self._confidence:
                return KEEP
            reason = "not_as_declared" if best in LANGUAGES else "other_language"
            return drop(reason, f"declared {declared}, reads as {best} ({found[best]:.2f})")
        ours = max(LANGUAGES, key=lambda lang: found.get(lang, 0.0))
        if best != ours and found[best] >= self._confidence:
            return drop("other_language", f"reads as {best} ({found[best]:.2f})")
        return edit(replace(document, lang=ours), f"labelled_{ours}", f"{found[ours]:.2f}")
