"""Words and their hashes in every script, vectorised: the measure that length, repetition and duplicates share.

A *unit* is a run of letters, digits and combining marks (Devanagari vowel signs are part of their word, which `\\w`
gets wrong), or one arithmetic sign, so that "3 + 4" and "3 - 4" differ. Thai is written without spaces: it is cut at
syllable onsets, which depend on the nearby characters only, so that the same text is cut the same way anywhere.
Chinese, Japanese, Khmer, Lao and Burmese are cut at every base character.
This is a measure, not a linguistic segmenter: `count_words` scales Thai syllables to words.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GAP, _LETTER, _THAI, _THAI_LEAD, _THAI_VOWEL, _SIGN, _SINGLE, _MARK = range(8)
_LAST = 0xFFFF
_SPACES = " \n\t\r\v\f\xa0\u3000"
_SIGNS = "+-*/=<>%^−×÷"
_ONE_CHARACTER_SCRIPTS = ((0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x9FFF), (0xF900, 0xFAFF))

# UD Thai-PUD, segmented by hand, has 22.3 words a sentence; we count 28.4 units a sentence in the same text.
THAI_WORDS_PER_UNIT = 0.79

_LONGEST = 256  # beyond it, characters of one unit are hashed without their order
_BASE = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Units:
    """The units of one text: `hashes` uint64 [n], `lengths` in characters [n], `kinds` (character class) [n]."""

    hashes: U64
    lengths: NDArray[np.int64]
    kinds: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.hashes)

    def units_per_word(self) -> float:
        """1.0, and more for a text that is mostly Thai."""
        thai = np.count_nonzero((self.kinds >= _THAI) & (self.kinds <= _THAI_VOWEL))
        return 1 / THAI_WORDS_PER_UNIT if 2 * thai > len(self) else 1.0


@functools.cache
def _classes() -> NDArray[np.uint8]:
    table = np.zeros(_LAST + 1, dtype=np.uint8)
    for code in range(_LAST):
        kind = unicodedata.category(chr(code))[0]
        if kind in "LN":
            table[code] = _LETTER
        elif kind == "M":
            table[code] = _MARK
    for low, high in _ONE_CHARACTER_SCRIPTS:
        block = table[low : high + 1]
        block[block == _LETTER] = _SINGLE
    for code in (0x200C, 0x200D, ord("_")):  # joiners inside Indic words; identifiers
        table[code] = _MARK
    table[0x0E01:0x0E2F] = _THAI
    table[0x0E2F:0x0E3B] = table[0x0E45:0x0E4C] = _THAI_VOWEL
    table[0x0E40:0x0E45] = _THAI_LEAD
    table[0x0E4C:0x0E4F] = _MARK  # the silencer ends a syllable, it does not open one
    table[[ord(sign) for sign in _SIGNS]] = _SIGN
    table[_LAST] = _LETTER  # everything beyond the basic plane
    return table


@functools.cache
def _space_table() -> NDArray[np.bool_]:
    table = np.zeros(_LAST + 1, dtype=np.bool_)
    table[[ord(space) for space in _SPACES]] = True
    return table


def _spaces(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = _space_table()[np.minimum(codes, _LAST)]
    return found


@functools.cache
def _powers() -> U64:
    powers = np.full(_LONGEST, _BASE, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def mixed(values: U64) -> U64:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def _starts(kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a unit begins, from the class of each character and of its neighbours."""
    before = np.empty_like(kinds)
    before[:1], before[1:] = _GAP, kinds[:-1]
    starts: NDArray[np.bool_] = (kinds == _LETTER) & (before != _LETTER) & (before != _MARK)
    starts |= (kinds == _SIGN) | (kinds == _SINGLE)
    starts |= (kinds == _MARK) & ((before == _GAP) | (before == _SIGN))
    thai = (kinds >= _THAI) & (kinds <= _THAI_VOWEL)
    if thai.any():
        after = np.empty_like(kinds)
        after[-1:], after[:-1] = _GAP, kinds[1:]
        outside = ((before < _THAI) | (before > _THAI_VOWEL)) & (before != _MARK)
        onset = (kinds == _THAI) & (after == _THAI_VOWEL) & (before != _THAI_LEAD)
        starts |= thai & (outside | onset | (kinds == _THAI_LEAD))
    return starts


def _coded(text: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return codes, _classes()[np.minimum(codes, _LAST)]


def units(text: str, *, whole_tokens: bool = False) -> Units:
    """Cut `text` into units, letter case ignored; O(len(text)) in numpy.

    With `whole_tokens` punctuation belongs to its word and only space separates (as published thresholds count), so
    that a URL or a piece of markup is one unit; Thai is cut as always.
    """
    codes, kinds = _coded(text.lower())
    if whole_tokens:
        marks = ((kinds == _GAP) & ~_spaces(codes)) | (kinds == _SIGN)
        kinds = np.where(marks, np.uint8(_LETTER), kinds)
    starts = _starts(kinds)
    inside = np.flatnonzero(kinds != _GAP)  # places to take are faster than a mask three times
    codes, starts, kinds = codes.take(inside), starts.take(inside), kinds.take(inside)
    firsts = np.flatnonzero(starts)
    if not len(firsts):
        empty = np.empty(0, dtype=np.int64)
        return Units(empty.astype(np.uint64), empty, empty.astype(np.uint8))
    lengths = np.empty_like(firsts)
    np.subtract(firsts[1:], firsts[:-1], out=lengths[:-1])  # np.diff with its `append` takes several times as long
    lengths[-1] = len(codes) - firsts[-1]
    places = np.minimum(np.arange(len(codes)) - np.repeat(firsts, lengths), _LONGEST - 1)
    terms = (codes.astype(np.uint64) + np.uint64(1)) * _powers()[places]
    return Units(mixed(np.add.reduceat(terms, firsts)), lengths, kinds[firsts])


def count_words(text: str) -> int:
    """Words in `text`: signs are not counted, Thai syllables count as a fraction of a word."""
    _, kinds = _coded(text)
    counts = np.bincount(kinds[_starts(kinds)], minlength=8)
    thai = int(counts[_THAI : _THAI_VOWEL + 1].sum())
    other = int(counts[_LETTER] + counts[_SINGLE] + counts[_MARK])
    return other + (max(1, round(thai * THAI_WORDS_PER_UNIT)) if thai else 0)


def ngram_hashes(hashes: U64, n: int) -> U64:
    """Hashes of every run of `n` units, uint64 [len - n + 1]; a shorter text is one run of all it has."""
    n = min(n, len(hashes))
    if n == 0:
        return hashes
    count = len(hashes) - n + 1
    combined = hashes[:count].copy()
    base = np.uint64(_BASE)
    for place in range(1, n):
        combined *= base
        combined += hashes[place : place + count]
    return mixed(combined)


def growing_ngrams(hashes: U64, longest: int) -> Iterator[tuple[int, U64]]:
    """(n, ngram_hashes(hashes, n)) for n from 1 to `longest`, each from the one before; ends where the text does."""
    combined = hashes.copy()
    for n in range(1, min(longest, len(hashes)) + 1):
        if n > 1:
            combined = combined[:-1]
            combined *= np.uint64(_BASE)
            combined += hashes[n - 1 :]
        yield n, mixed(combined)


def readable_fraction(text: str) -> float:
    """Letters, digits and their marks among the characters that are not space; 1.0 for a text of spaces."""
    codes, kinds = _coded(text)
    solid = len(codes) - int(np.count_nonzero(_spaces(codes)))
    return float(np.count_nonzero((kinds != _GAP) & (kinds != _SIGN)) / solid) if solid else 1.0
