"""Where batches come from: rows cut from token shards, rows of packed dialogues, mixtures and phases of these.

Everything is a pure function of the row's number: a `RowSource` gives row n of an endless sequence, `Batches` makes
the microbatches of a step of them. A resumed run needs no state of the loader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from herd.errors import InputError, SettingError
from herd.train.batch import WHOLE, Batch, BatchSource, Part
from herd.train.order import DocumentOrder, SectionedStore, TokenStore, permutation
from herd.train.packing import Ints, Row, Sequenced, collate, pack, packed_row, stream_row
from herd.train.settings import TrainSettings


class RowSource(Protocol):
    """An endless, fixed sequence of rows. Row `number` is `at(index(number))`, the same for the same number, always.

    Rows that come back in every epoch have the same index each time, so that something can be stored beside them.
    """

    def index(self, number: int) -> int:
        """Which row stands at place `number` of the sequence, counted from 0."""
        ...

    def at(self, index: int) -> Row:
        """The row of that index."""
        ...


def row_of(rows: RowSource, number: int) -> Row:
    """Row `number` of the sequence."""
    return rows.at(rows.index(number))


class TokenStream:
    """Rows of `seq_len` tokens cut from documents, one after another in a new random order every epoch (order.py).

    Every token of every document is an input exactly once an epoch. A document that does not fit goes on in the
    next row without what came before. The first row begins at token `origin` of the endless stream: where an earlier
    phase, of whatever row length, stopped.
    """

    def __init__(self, store: TokenStore | SectionedStore, seq_len: int, seed: int, *, origin: int = 0) -> None:
        self.seq_len, self.origin = seq_len, origin
        self._order = DocumentOrder(store, seed)
        self.n_tokens = self._order.n_tokens
        if self.n_tokens < 1:
            raise InputError("there are no tokens to train on", mend="check the corpus: every document was dropped")

    def index(self, number: int) -> int:
        return number

    def at(self, index: int) -> Row:
        start = self.origin + index * self.seq_len
        tokens, documents = self._span(start, start + self.seq_len + 1)
        return stream_row(tokens, documents)

    def _span(self, start: int, end: int) -> tuple[Ints, Ints]:
        """Tokens [start, end) of the endless stream, and for each which document of the span it belongs to."""
        parts: list[NDArray[np.generic]] = []
        while start < end:
            place = self._order.place(*divmod(start, self.n_tokens))
            document = place.store.document(place.document)
            part = document[len(document) - place.left :][: end - start]
            parts.append(part)
            start += len(part)
        counts = [len(part) for part in parts]
        return np.concatenate(parts).astype(np.int64), np.repeat(np.arange(len(parts)), counts)


class Shuffled:
    """The rows of another source, permuted within blocks of `block` rows.

    A long document fills many rows of a `TokenStream` in a row; without this a small batch can be all one document.
    No row crosses a border: the first n rows are the other source's first n, for every n of `borders`, so that what
    was read up to there can be told in one number.
    """

    def __init__(self, rows: RowSource, seed: int, block: int = 2048, borders: Sequence[int] = ()) -> None:
        self.rows, self.seed, self.block, self.borders = rows, seed, block, sorted({0, *borders})
        self._orders: dict[int, Ints] = {}

    def index(self, number: int) -> int:
        at = bisect_right(self.borders, number) - 1
        begin = self.borders[at]
        block, place = divmod(number - begin, self.block)
        first = begin + block * self.block
        if first not in self._orders:
            end = self.borders[at + 1] if at + 1 < len(self.borders) else first + self.block
            order = permutation(min(self.block, end - first), self.seed, block, begin)
            self._orders = {first: order}
        return self.rows.index(first + int(self._orders[first][place]))

    def at(self, index: int) -> Row:
        return self.rows.at(index)


class PackedRows:
    """Rows of whole sequences (dialogues) packed once; every epoch goes through the rows in a new order."""

    def __init__(self, sequences: Sequence[Sequenced], seq_len: int, seed: int, pad: int = 0) -> None:
        if not any(any(sequence.trained) for sequence in sequences):
            raise InputError("no token of these dialogues is trained", mend="give dialogues with assistant turns")
        self.sequences, self.seq_len, self.seed, self.pad = sequences, seq_len, seed, pad
        self.bins = pack([len(sequence.ids) for sequence in sequences], seq_len)
        self._orders: dict[int, Ints] = {}

    @property
    def n_rows(self) -> int:
        """Rows in one epoch."""
        return len(self.bins)

    def index(self, number: int) -> int:
        epoch, place = divmod(number, self.n_rows)
        if epoch not in self._orders:
            self._orders = {epoch: permutation(self.n_rows, self.seed, epoch)}
        return int(self._orders[epoch][place])

    def at(self, index: int) -> Row:
        return packed_row([self.sequences[i] for i in self.bins[index]], self.seq_len, self.pad)


@dataclass(frozen=True)
class Batches:
    """The microbatches of every step out of a row source: rows step * R to (step + 1) * R."""

    rows: RowSource
    settings: TrainSettings

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        count, size = self.settings.rows_per_step, self.settings.rows_per_microbatch
        rows = [row_of(self.rows, step * count + place) for place in part.of(count)]
        fill = part.each(count) - len(rows)
        if fill:
            like = rows[-1] if rows else row_of(self.rows, step * count)
            rows += [replace(like, weights_T=np.zeros_like(like.weights_T))] * fill
        return [collate(rows[at : at + size]) for at in range(0, len(rows), size)]


@dataclass(frozen=True)
class Phases:
    """Sources one after another, e.g. an upsampled mixture while annealing: (first step, source), ascending from 0.

    Each phase's source counts its own steps from 0.
    """

    phases: Sequence[tuple[int, BatchSource]]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.phases]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise SettingError(f"phases begin at 0 and ascend, not {starts}")

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        start, source = max((phase for phase in self.phases if phase[0] <= step), key=lambda phase: phase[0])
        return source.batch(step - start, part)


@dataclass(frozen=True)
class FixedBatches:
    """The same given steps over and over: validation sets, tests."""

    steps: Sequence[list[Batch]]

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        return [batch.share(part) for batch in self.steps[step % len(self.steps)]]


def validation_batches(rows: RowSource, n_rows: int, rows_per_batch: int) -> list[Batch]:
    """The first `n_rows` rows as batches without gradient in mind: the held-out set of `mean_loss`."""
    numbers = range(n_rows)
    return [
        collate([row_of(rows, n) for n in numbers[at : at + rows_per_batch]]) for at in range(0, n_rows, rows_per_batch)
    ]
