"""Rows of equal length out of sequences of any length, with the document ids that keep them apart.

Nothing is lost: every token of every sequence stands in exactly one row, every sequence whole in one row.
It does not cut sequences; a stream of documents that may be cut is `sources.TokenStream`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from herd.errors import InputError
from herd.train.batch import Batch

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Sequenced(Protocol):
    """Anything with ids and a mask of which of them are trained: `herd.text.chat.Dialogue` is one."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def trained(self) -> Sequence[bool]: ...


@dataclass(frozen=True)
class Row:
    """One row of T tokens: inputs, targets, weights of the targets, document of each token, place within it.

    `extras` are stacked into the batch's: what one objective needs beside these.
    """

    tokens_T: Ints
    targets_T: Ints
    weights_T: Floats
    documents_T: Ints
    positions_T: Ints
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: which sequences share a row of `capacity` tokens. Deterministic; O(n log n).

    Raises InputError when a sequence is longer than a row.
    """
    longer = sum(length > capacity for length in lengths)
    if longer:
        raise InputError(
            f"{longer} of {len(lengths)} sequences are longer than a row of {capacity} tokens"
            f" (the longest has {max(lengths)})",
            mend="raise seq_len, or leave those sequences out",
        )
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        found = bisect_left(room, (lengths[index], -1))
        if found == len(room):
            rows.append([index])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(found)
            rows[row].append(index)
        if free > lengths[index]:
            insort(room, (free - lengths[index], row))
    return rows


def packed_row(sequences: Iterable[Sequenced], seq_len: int, pad: int = 0) -> Row:
    """One row: the sequences one after another, then padding of weight 0.

    The target of a token is its successor within the sequence; it counts if that successor is trained. The padding
    prolongs the last document: nothing looks ahead into it, and a row of one sequence needs no document mask.
    """
    tokens, targets = np.full(seq_len, pad, np.int64), np.full(seq_len, pad, np.int64)
    weights, positions = np.zeros(seq_len, np.float32), np.zeros(seq_len, np.int64)
    documents = np.zeros(seq_len, np.int64)
    start = count = 0
    for sequence in sequences:
        end = start + len(sequence.ids)
        tokens[start:end] = sequence.ids
        targets[start : end - 1] = tokens[start + 1 : end]
        weights[start : end - 1] = np.asarray(sequence.trained, np.float32)[1:]
        documents[start:end] = count
        positions[start:end] = np.arange(end - start)
        start, count = end, count + 1
    documents[start:] = max(0, count - 1)
    positions[start:] = np.arange(seq_len - start)
    return Row(tokens, targets, weights, documents, positions)


def stream_row(tokens: Ints, documents: Ints) -> Row:
    """One row out of T+1 consecutive tokens of a stream of documents: inputs, and targets one place on.

    A target in another document than its input weighs 0. Positions restart at every document and at the row's start.
    """
    here, following = documents[:-1], documents[1:]
    starts = np.flatnonzero(np.diff(here, prepend=here[:1] - 1))
    lengths = np.diff(starts, append=len(here))
    ranks = np.repeat(np.arange(len(starts)), lengths)
    positions = np.arange(len(here)) - np.repeat(starts, lengths)
    weights = (here == following).astype(np.float32)
    return Row(tokens[:-1], tokens[1:], weights, ranks, positions)


def collate(rows: Sequence[Row]) -> Batch:
    """Rows of one length stacked into a microbatch. Rows that hold one document each need no document mask."""
    documents_BT = np.stack([row.documents_T for row in rows])
    return Batch(
        tokens_BT=torch.from_numpy(np.stack([row.tokens_T for row in rows])),
        targets_BT=torch.from_numpy(np.stack([row.targets_T for row in rows])),
        weights_BT=torch.from_numpy(np.stack([row.weights_T for row in rows])),
        document_ids_BT=torch.from_numpy(documents_BT) if documents_BT.any() else None,
        positions_BT=torch.from_numpy(np.stack([row.positions_T for row in rows])),
        extras={key: torch.from_numpy(np.stack([row.extras[key] for row in rows])) for key in rows[0].extras},
    )
