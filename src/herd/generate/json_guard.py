"""What a grammar cannot keep out of a tool call: keys written twice, numbers beyond floats, brackets without end.

No context-free grammar knows which keys an object has already, and `herd.text.call_forms` reads no call that has one
twice. A guard follows the bytes of the reply and says which of the tokens that the grammar allows would break a rule.
Only tokens that could are looked at, so it costs next to nothing where nothing can go wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

DEEPEST = 90  # brackets in one another; `call_forms` reads 100
LONGEST_NUMBER = 200  # characters before an exponent; with two digits of exponent that is a float still
_LARGE, _SMALL = 2, 3  # digits of an exponent, of one with a minus
_OPENING, _CLOSING = b"{[", b"}]"
_NUMBER = b"0123456789+-.eE"
_EXPONENT = re.compile(rb"[eE][-+]?[0-9]{2}")
_Frame = frozenset[bytes] | None  # of an object the keys that it has, as they are written; None: an array
_Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where in its JSON a reply stands."""

    frames: tuple[_Frame, ...] = ()
    quoted: bytes | None = None  # inside a string: what of it is written so far, of a key; b"" of a value
    is_key: bool = False  # of the string that is open, or of the next one
    escaped: bool = False
    number: int = 0  # characters of the number that is open
    exponent: int = -1  # digits of its exponent; -1: it has none
    small: bool = False  # a minus stands before them

    def after(self, text: bytes) -> Place | None:
        """The place after these bytes; None if they break a rule."""
        place = self
        for byte in text:
            found = place._string(byte) if place.quoted is not None else place._outside(byte)
            if found is None:
                return None
            place = found
        return place

    def _string(self, byte: int) -> Place | None:
        assert self.quoted is not None
        so_far = self.quoted + bytes([byte]) if self.is_key else b""
        if self.escaped or byte != ord('"'):
            return replace(self, quoted=so_far, escaped=not self.escaped and byte == ord("\\"))
        if not self.is_key:
            return replace(self, quoted=None)
        keys = self.frames[-1]
        if keys is None or self.quoted in keys:
            return None
        return replace(self, quoted=None, is_key=False, frames=(*self.frames[:-1], keys | {self.quoted}))

    def _outside(self, byte: int) -> Place | None:
        if byte in _NUMBER and (self.number or byte in b"-0123456789"):
            return self._number(byte)
        place = self if not self.number else replace(self, number=0, exponent=-1)
        if byte == ord('"'):
            return replace(place, quoted=b"")
        if byte in _OPENING:
            if len(self.frames) >= DEEPEST:
                return None
            frame: _Frame = frozenset() if byte == ord("{") else None
            return replace(place, frames=(*self.frames, frame), is_key=byte == ord("{"))
        if byte in _CLOSING:
            return replace(place, frames=self.frames[:-1], is_key=False)
        if byte == ord(","):
            return replace(place, is_key=bool(self.frames) and self.frames[-1] is not None)
        return place

    def _number(self, byte: int) -> Place | None:
        if self.exponent >= 0:
            small = self.small or byte == ord("-")
            digits = self.exponent + (byte in b"0123456789")
            return replace(self, exponent=digits, small=small) if digits <= (_SMALL if small else _LARGE) else None
        if byte in b"eE":
            return replace(self, exponent=0, small=False)
        # what must go on with a digit does not begin where there is room for none
        room = LONGEST_NUMBER - (byte not in b"0123456789")
        return replace(self, number=self.number + 1) if self.number < room else None


class Suspects:
    """The tokens of a vocabulary that could break a rule somewhere."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        quotes = np.array([token.count(b'"') for token in tokens])
        self.tokens = tokens
        self.with_quote, self.with_two, self.with_three = (np.flatnonzero(quotes >= n) for n in (1, 2, 3))
        self.by_head = _by_head(tokens, self.with_quote)
        self.opening = _having(tokens, _OPENING)
        self.numeric = np.array([i for i, t in enumerate(tokens) if t[:1] and t[0] in _NUMBER], dtype=np.int64)
        self.exponents = np.array([i for i, t in enumerate(tokens) if _EXPONENT.search(t)], dtype=np.int64)
        self.most_opening = max((sum(t.count(b) for b in (b"{", b"[")) for t in tokens), default=0)
        self.longest = max(map(len, tokens), default=0)

    def at(self, place: Place) -> _Ids:
        """Those that could break one at this place; duplicates do no harm."""
        if place.quoted is not None:
            found = self._ending(place) if place.is_key else [self.with_three]
        else:
            found = [self.with_two if any(place.frames) else self.with_three]
            if place.number + self.longest >= LONGEST_NUMBER or place.exponent >= 0:
                found.append(self.numeric)
            found.append(self.exponents)
        if len(place.frames) + self.most_opening > DEEPEST:
            found.append(self.opening)
        return np.concatenate(found)

    def _ending(self, place: Place) -> list[_Ids]:
        """Those that end a key as one that its object has, and those that go on to the end of the next."""
        assert place.quoted is not None
        keys = place.frames[-1] or frozenset()
        rests = [key[len(place.quoted) :] for key in keys if key.startswith(place.quoted)]
        if any(b'"' in rest for rest in rests):  # an escaped quote: which quote ends the key is not so plain
            return [self.with_quote]
        return [self.with_three, *(self.by_head[rest] for rest in rests if rest in self.by_head)]


class JsonGuard:
    """Follows one reply (`advance`) and takes from a mask what would break a rule (`narrow`)."""

    def __init__(self, suspects: Suspects) -> None:
        self._suspects, self._place = suspects, Place()

    def narrow(self, mask: NDArray[np.bool_]) -> None:
        suspects = self._suspects.at(self._place)
        for token in suspects[mask[suspects]].tolist():
            if self._place.after(self._suspects.tokens[token]) is None:
                mask[token] = False

    def advance(self, token: bytes) -> None:
        """`token` came, which `narrow` left."""
        place = self._place.after(token)
        assert place is not None, "a token came that was not allowed"
        self._place = place


def _having(tokens: Sequence[bytes], some: bytes) -> _Ids:
    return np.array([i for i, token in enumerate(tokens) if set(some) & set(token)], dtype=np.int64)


def _by_head(tokens: Sequence[bytes], ids: _Ids) -> dict[bytes, _Ids]:
    """Those of these tokens that begin alike, up to their first quote."""
    heads: dict[bytes, list[int]] = {}
    for token in ids.tolist():
        heads.setdefault(tokens[token].partition(b'"')[0], []).append(token)
    return {head: np.array(found, dtype=np.int64) for head, found in heads.items()}
