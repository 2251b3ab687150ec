"""Guesses out of the text itself: what stood behind the same tokens before (prompt look-up decoding, Saxena 2023).

It costs next to nothing and helps where a text repeats: summaries and answers that quote, edited code, JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from herd.errors import SettingError
from herd.generate.speculation import Target, Wanted


class PromptLookup:
    """Looks up the last `max_ngram` tokens in prompt and continuation, then fewer of them, `min_ngram` at least.

    Of several places the latest counts. Raises SettingError for lengths that mean nothing.
    """

    def __init__(self, max_ngram: int = 3, max_draft: int = 7, min_ngram: int = 2) -> None:
        for name, value, least in (("max_ngram", max_ngram, min_ngram), ("max_draft", max_draft, 1)):
            if value < least:
                raise SettingError(f"{name} is {value}", where=name, mend=f"give {least} at least")
        if min_ngram < 1:
            raise SettingError(f"min_ngram is {min_ngram}", where="min_ngram", mend="give 1 at least")
        self.max_ngram, self.min_ngram, self.max_draft = max_ngram, min_ngram, max_draft

    def check(self, target: Target) -> None:
        """It drafts for every model."""

    def open(self, target: Target) -> LookUps:
        return LookUps(self)


class LookUps:
    """The texts of one batch, as arrays that grow with them: a look-up compares them with one token at a time."""

    cost = 0.0

    def __init__(self, settings: PromptLookup) -> None:
        self._settings = settings
        self._texts: dict[int, _Text] = {}

    def draft(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        how = self._settings
        found = []
        for one in wanted:
            text = self._texts.setdefault(one.number, _Text()).grown(one.tokens)
            found.append(look_up(text, how.max_ngram, how.min_ngram, one.most))
        return found

    def end(self, number: int) -> None:
        self._texts.pop(number, None)

    def forget(self) -> None:
        """Texts do not depend on weights."""

    def check(self) -> None:
        assert not self._texts, "the text of a request that is over is held"


class _Text:
    def __init__(self) -> None:
        self._room, self._length = np.empty(0, dtype=np.int32), 0

    def grown(self, tokens: Sequence[int]) -> NDArray[np.int32]:
        """`tokens` as an array; what it held before is not read again."""
        if len(tokens) > len(self._room):
            self._room = np.resize(self._room, 2 * len(tokens)) if self._length else np.empty(2 * len(tokens), np.int32)
        self._room[self._length : len(tokens)] = tokens[self._length :]
        self._length = len(tokens)
        return self._room[: self._length]


def look_up(text_T: NDArray[np.int32], max_ngram: int, min_ngram: int, most: int) -> list[int]:
    """What followed the latest earlier place that ends like the text, on `max_ngram` tokens or as many as possible.

    A text that repeats itself goes on repeating: a place whose continuation is the end of the text is read in a circle.
    """
    last = len(text_T) - 1
    places = np.flatnonzero(text_T[:last] == text_T[last]) if last > 0 else np.empty(0, dtype=np.int64)
    matched = 1
    while matched < max_ngram and len(places):
        longer = places[places >= matched]
        longer = longer[text_T[longer - matched] == text_T[last - matched]]
        if not len(longer):
            break
        places, matched = longer, matched + 1
    if not len(places) or matched < min_ngram:
        return []
    start = int(places[-1]) + 1
    following = text_T[start : start + most]
    return [int(token) for token in np.resize(following, most)]
