"""Which queries of a pass are worked on together, and which pages they read: numbers for `attention.py`, no tensors.

    planned = plan([Sequence(start=0, stop=40, pages=[3, 1, 7]), ...], page=16, per_group=4)

A block is a run of tokens that share what is read: a part of a prompt, or single tokens of sequences that begin with
the same pages. A segment is positions that some tokens of a block read through one table; those in common come first
and are read once. None of this changes a bit of any result: a query meets its keys in the order of their positions,
`BLOCK` at a time, whoever is beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # positions that are looked at together: that of csrc/pass.h
ROWS = 64  # queries by heads of a group in a block: enough to pay for reading the keys, few enough to share them out


@dataclass(frozen=True)
class Sequence:
    """Positions `start` to `stop` of one sequence are computed; position p lies in `pages[p // page]`."""

    start: int
    stop: int
    pages: Many[int]


@dataclass(frozen=True)
class Plan:
    """The tokens of a pass, sequence after sequence, in the arrays that csrc/attention.c walks."""

    positions_N: NDArray[np.int64]
    places_N: NDArray[np.int64]  # page * page size + offset: where each token's key and value belong
    tables: NDArray[np.int32]
    blocks: NDArray[np.int64]  # [blocks, 4]: first token, tokens, first segment, segments
    segments: NDArray[np.int64]  # [segments, 5]: first token, tokens, where its table begins, first position, end
    n_tokens: int
    n_pages: int  # pages that there must be: one more than the highest number of one


def plan(sequences: Many[Sequence], page: int, per_group: int) -> Plan:
    """`per_group`: query heads of one head of keys. Neighbours that begin alike share a block."""
    starts = np.cumsum([0] + [s.stop - s.start for s in sequences])
    tables = [np.asarray(s.pages, dtype=np.int32) for s in sequences]
    offsets = np.cumsum([0] + [len(table) for table in tables])
    positions = [np.arange(s.start, s.stop) for s in sequences]
    places = [
        table[where // page].astype(np.int64) * page + where % page
        for table, where in zip(tables, positions, strict=True)
    ]
    width = max(1, ROWS // per_group)
    blocks: list[tuple[int, int, int, int]] = []
    segments: list[tuple[int, int, int, int, int]] = []
    for first, last in _families(sequences, tables, width):
        before = len(segments)
        if sequences[first].stop - sequences[first].start > 1:
            for token in range(int(starts[first]), int(starts[last]), width):
                n = min(width, int(starts[last]) - token)
                stop = sequences[first].start + token - int(starts[first]) + n
                blocks.append((token, n, len(segments), 1))
                segments.append((token, n, int(offsets[first]), 0, stop))
            continue
        common = [_common(tables[i], tables[i + 1], page) for i in range(first, last - 1)]
        for low, high, begin, end in _segments(common, [s.stop for s in sequences[first:last]], 0, last - first, 0):
            segments.append((int(starts[first]) + low, high - low, int(offsets[first + low]), begin, end))
        blocks.append((int(starts[first]), last - first, before, len(segments) - before))
    return Plan(
        np.concatenate(positions),
        np.concatenate(places),
        np.concatenate(tables),
        np.array(blocks, dtype=np.int64),
        np.array(segments, dtype=np.int64),
        int(starts[-1]),
        1 + max(int(table.max()) for table in tables),
    )


def _families(sequences: Many[Sequence], tables: Many[NDArray[np.int32]], width: int) -> Iterator[tuple[int, int]]:
    """Runs of sequences that one block serves: single tokens that begin with the same page, all others alone."""
    first = 0
    for i in range(1, len(sequences) + 1):
        same = (
            i < len(sequences)
            and i - first < width
            and all(s.stop - s.start == 1 and s.stop > BLOCK for s in (sequences[first], sequences[i]))
            and tables[first][0] == tables[i][0]
        )
        if not same:
            yield first, i
            first = i


def _common(a: NDArray[np.int32], b: NDArray[np.int32], page: int) -> int:
    """Positions that two sequences have in common, in whole blocks."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0] if len(differs) else n) * page // BLOCK * BLOCK


def _segments(
    common: Many[int], stops: Many[int], low: int, high: int, begin: int
) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, begin, end) of what members [low, high) read from position `begin` on, the shared first."""
    if high - low == 1:
        if stops[low] > begin:
            yield low, high, begin, stops[low]
        return
    end = min(common[low : high - 1])
    if end > begin:
        yield low, high, begin, end
    start = low
    for i in range(low, high):
        if i == high - 1 or common[i] == end:
            yield from _segments(common, stops, start, i + 1, max(begin, end))
            start = i + 1
