"""Contamination: do held-out texts share runs of words with the training texts?

Words are units of `words.py` (signs count, letter case and line breaks do not), so a re-wrapped text is found too.
Hashes have 64 bits; at 10^8 training and 10^5 held-out runs a false find has a chance of about 10^-6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from herd.corpus.words import ngram_hashes, units

U64 = NDArray[np.uint64]


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
    for place, text in enumerate(train_texts):
        hashes = units(text).hashes
        for length, runs in by_length.items():
            if len(hashes) >= length:
                found = ngram_hashes(hashes, length)
                for value in found[np.isin(found, runs)].tolist():
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
