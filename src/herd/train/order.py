"""In which order documents are read: an explicit function of seed and epoch, for stores of any size.

A store that need not be open all at once has sections (folders of shards). Sections go in a new order every epoch; in
a section, windows of `WINDOW` tokens; in a window, documents. So what is read next lies close together, and can be
brought from elsewhere before it is needed. A store of one section and one window is one shuffled whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WINDOW = 1 << 26  # tokens: 4 to 16 of the paper's batches, 128 to 256 MB; herd's choice
_KEPT = 3  # orders of sections that are kept


class TokenStore(Protocol):
    """Documents as ids: `herd.corpus.shards.Shards` is one."""

    @property
    def offsets(self) -> Ints:
        """Where each document begins, and the end: [documents + 1]."""
        ...

    def document(self, index: int) -> NDArray[np.generic]: ...


@runtime_checkable
class SectionedStore(Protocol):
    """Stores one after another, opened as they are read: `herd.corpus.streams.ShardSet` is one."""

    @property
    def section_tokens(self) -> Ints:
        """How many tokens each section has."""
        ...

    def section(self, index: int) -> TokenStore: ...

    def expect(self, section: int, start: int, end: int) -> None:
        """Tokens [start, end) of a section will be read soon."""
        ...


def permutation(n: int, seed: int, epoch: int, *more: int) -> Ints:
    """The order of n things in one epoch, from explicit numbers only. Trailing zeros in `more` change nothing."""
    return np.random.default_rng((seed, epoch, *more)).permutation(n).astype(np.int64)


@dataclass(frozen=True)
class Place:
    """A document in an epoch's order: its section, the open section, its number there, its tokens still to come."""

    section: int
    store: TokenStore
    document: int
    left: int


@dataclass(frozen=True)
class _SectionOrder:
    """A section's documents in one epoch's order, where each ends, and the windows in their order with their ends."""

    documents: Ints
    ends: Ints
    windows: Ints
    window_ends: Ints


@dataclass
class DocumentOrder:
    """Where token `offset` of epoch `epoch` is: nothing is kept but the orders used last."""

    store: TokenStore | SectionedStore
    seed: int
    window: int = WINDOW
    _sections: dict[int, tuple[Ints, Ints]] = field(default_factory=dict, repr=False)
    _orders: dict[tuple[int, int], _SectionOrder] = field(default_factory=dict, repr=False)
    _told: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        store = self.store
        self.sizes: Ints = (
            store.section_tokens if isinstance(store, SectionedStore) else np.asarray([store.offsets[-1]], np.int64)
        )
        self.n_tokens = int(self.sizes.sum())

    def place(self, epoch: int, offset: int) -> Place:
        """Which document holds token `offset` of the epoch, counted from 0."""
        sections, ends = self._of_epoch(epoch)
        at = int(np.searchsorted(ends, offset, side="right"))
        section = int(sections[at])
        offset -= int(ends[at]) - int(self.sizes[section])
        store = self.store.section(section) if isinstance(self.store, SectionedStore) else self.store
        order = self._of_section(store, epoch, section)
        self._look_ahead(epoch, at, order, offset)
        rank = int(np.searchsorted(order.ends, offset, side="right"))
        return Place(section, store, int(order.documents[rank]), int(order.ends[rank]) - offset)

    def _of_epoch(self, epoch: int) -> tuple[Ints, Ints]:
        """The order of sections, and where each ends in the epoch; of the last two epochs."""
        if epoch not in self._sections:
            while len(self._sections) >= 2:
                del self._sections[next(iter(self._sections))]
            order = permutation(len(self.sizes), self.seed, epoch, len(self.sizes))
            self._sections[epoch] = (order, np.cumsum(self.sizes[order]))
        return self._sections[epoch]

    def _of_section(self, store: TokenStore, epoch: int, section: int) -> _SectionOrder:
        if (epoch, section) not in self._orders:
            while len(self._orders) >= _KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch, section] = self._shuffled(store.offsets, epoch, section)
        return self._orders[epoch, section]

    def _shuffled(self, offsets: Ints, epoch: int, section: int) -> _SectionOrder:
        """Documents belong to the window that they begin in."""
        count = max(1, -(-int(offsets[-1]) // self.window))
        windows = permutation(count, self.seed, epoch, section, count) if count > 1 else np.zeros(1, np.int64)
        borders = np.searchsorted(offsets[:-1], np.arange(count + 1) * self.window)
        borders[-1:] = len(offsets) - 1  # documents of no tokens at the very end
        documents = np.concatenate(
            [
                borders[one] + permutation(int(borders[one + 1] - borders[one]), self.seed, epoch, section, int(one))
                for one in windows
            ]
        )
        sizes = np.diff(offsets)
        per_window = np.asarray([offsets[borders[one + 1]] - offsets[borders[one]] for one in windows], np.int64)
        return _SectionOrder(documents, np.cumsum(sizes[documents]), windows, np.cumsum(per_window))

    def _look_ahead(self, epoch: int, at: int, order: _SectionOrder, offset: int) -> None:
        """Tell the store what is read now and next, once for each window."""
        if not isinstance(self.store, SectionedStore):
            return
        window = int(np.searchsorted(order.window_ends, offset, side="right"))
        if self._told == (epoch, at, window):
            return
        self._told = (epoch, at, window)
        section = int(self._of_epoch(epoch)[0][at])
        self._tell(section, int(order.windows[window]))
        if window + 1 < len(order.windows):
            self._tell(section, int(order.windows[window + 1]))
            return
        epoch, at = (epoch, at + 1) if at + 1 < len(self.sizes) else (epoch + 1, 0)
        section = int(self._of_epoch(epoch)[0][at])
        count = -(-int(self.sizes[section]) // self.window)
        if count:
            self._tell(section, int(permutation(count, self.seed, epoch, section, count)[0]) if count > 1 else 0)

    def _tell(self, section: int, window: int) -> None:
        assert isinstance(self.store, SectionedStore)
        end = min((window + 1) * self.window, int(self.sizes[section]))
        self.store.expect(section, window * self.window, end)
