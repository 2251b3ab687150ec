"""Contamination: do held-out texts share runs of words with the training texts?

Words are units of `words.py` (signs count, letter case and line breaks do not), so a re-wrapped text is found too.
Hashes have 64 bits; at 10^8 training and 10^5 held-out runs a false find has a chance of about 10^-6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herd.corpus.words import growing_ngrams, ngram_hashes, units

U64 = NDArray[np.uint64]
_BATCH_UNITS = 100_000


@dataclass(frozen=True)
class Overlap:
    """A held-out text that shares word runs with training: its place in the sequence, and how much of it is known.

    `fraction` is of the held-out text's runs of `n` words; `train` is the place of one training text with such a run.
    """

    held_out: int
    train: int
    n: int
    shared: int
    fraction: float


def overlaps(train_texts: Iterable[str], held_out_texts: Sequence[str], n: int) -> list[Overlap]:
    """Every held-out text with at least one run of `n` words that occurs in a training text, in their order.

    A held-out text of fewer than `n` words is compared as a whole: it overlaps when all of it stands somewhere in a
    training text. Texts without a word are left out. Memory is bounded by the held-out texts.
    """
    assert n > 0, "n counts words"
    wanted, by_length = _held_out_runs(held_out_texts, n)
    known: dict[int, dict[int, int]] = {length: {} for length in by_length}
    for batch in joined_units(train_texts):
        for length, hashes, places in _runs(batch, by_length):
            for value, place in zip(hashes.tolist(), places.tolist(), strict=True):
                known[length].setdefault(value, place)
    result = []
    for index, (length, hashes) in wanted.items():
        hits = [known[length][value] for value in hashes.tolist() if value in known[length]]
        if hits:
            result.append(Overlap(index, min(hits), length, len(hits), len(hits) / len(hashes)))
    return result


def _held_out_runs(texts: Sequence[str], n: int) -> tuple[dict[int, tuple[int, U64]], dict[int, U64]]:
    """(for each text its run length and its runs' hashes, for each run length the distinct hashes)."""
    wanted: dict[int, tuple[int, U64]] = {}
    parts: defaultdict[int, list[U64]] = defaultdict(list)
    for index, text in enumerate(texts):
        hashes = units(text).hashes
        if len(hashes):
            length = min(n, len(hashes))
            wanted[index] = (length, ngram_hashes(hashes, length))
            parts[length].append(wanted[index][1])
    return wanted, {length: np.unique(np.concatenate(found)) for length, found in parts.items()}


@dataclass(frozen=True)
class Batch:
    """Units of several texts, one after another: their hashes, each one's text, and how many follow in that text."""

    hashes: U64
    places: NDArray[np.int64]
    left: NDArray[np.int64]  # this unit counted


def joined_units(texts: Iterable[str]) -> Iterator[Batch]:
    """Texts joined until numpy's cost per call no longer counts."""
    parts: list[U64] = []
    first, size = 0, 0
    for place, text in enumerate(texts):
        parts.append(units(text).hashes)
        size += len(parts[-1])
        if size >= _BATCH_UNITS:
            yield _joined(parts, first)
            parts, first, size = [], place + 1, 0
    if size:
        yield _joined(parts, first)


def _joined(parts: list[U64], first: int) -> Batch:
    lengths = np.array([len(part) for part in parts])
    ends = np.repeat(np.cumsum(lengths), lengths)
    hashes = np.concatenate(parts)
    return Batch(hashes, np.repeat(np.arange(first, first + len(parts)), lengths), ends - np.arange(len(hashes)))


def _runs(batch: Batch, by_length: Mapping[int, U64]) -> Iterator[tuple[int, U64, NDArray[np.int64]]]:
    """For each length the runs of the batch that are held out, and the texts they stand in."""
    for length, combined in growing_ngrams(batch.hashes, max(by_length, default=0)):
        if length in by_length:
            places = np.flatnonzero(batch.left[: len(combined)] >= length)
            hashes, runs = combined[places], by_length[length]
            hit = runs[np.minimum(np.searchsorted(runs, hashes), len(runs) - 1)] == hashes
            yield length, hashes[hit], batch.places[places[hit]]
