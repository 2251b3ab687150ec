"""Rows of several sources by weight, in counts that are exact, with other weights from some row on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from herd.errors import SettingError
from herd.train.order import Ints
from herd.train.packing import Row
from herd.train.sources import RowSource, row_of


class Pattern:
    """Of every `period` rows source s gives round(weight_s * period) (largest remainders), in a fixed interleaving."""

    def __init__(self, weights: Sequence[float], period: int) -> None:
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise SettingError(f"sources cannot be mixed by the weights {list(weights)}")
        shares = np.asarray(weights, np.float64) / sum(weights) * period
        counts = np.floor(shares).astype(np.int64)
        counts[np.argsort(counts - shares, kind="stable")[: period - counts.sum()]] += 1
        self.counts, self.period = counts, period
        # The j-th of n rows of a source stands at (j + 1/2) / n of the period: as even as can be.
        places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
        self.order = np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]

    def taken(self, rows: int) -> Ints:
        """How many of the first `rows` rows come from each source."""
        cycles, rest = divmod(rows, self.period)
        return cycles * self.counts + np.bincount(self.order[:rest], minlength=len(self.counts))


class Mixture:
    """Rows of several sources by weight, spread evenly; from row `n` of each (n, weights) of `changes` by others.

    Every source gives its rows in its own order, each once, across all changes.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        weights: Sequence[float],
        period: int = 1000,
        changes: Sequence[tuple[int, Sequence[float]]] = (),
    ) -> None:
        mixes = [(0, weights), *changes]
        self.starts = [start for start, _ in mixes]
        if any(len(one) != len(sources) for _, one in mixes):
            raise SettingError(f"{len(sources)} sources cannot be mixed by {[len(one) for _, one in mixes]} weights")
        if self.starts != sorted(set(self.starts)):
            raise SettingError(f"a mix changes at rows that ascend from 1, not at {self.starts[1:]}")
        self.sources, self.patterns = list(sources), [Pattern(one, period) for _, one in mixes]
        self._before = [np.zeros(len(sources), np.int64)]  # of each source, when a mix begins
        for pattern, start, end in zip(self.patterns, self.starts, self.starts[1:], strict=False):
            self._before.append(self._before[-1] + pattern.taken(end - start))

    def taken(self, rows: int) -> Ints:
        """How many of the first `rows` rows come from each source."""
        at = self._mix(rows)
        return self._before[at] + self.patterns[at].taken(rows - self.starts[at])

    def index(self, number: int) -> int:
        return number

    def at(self, index: int) -> Row:
        mix = self._mix(index)
        pattern = self.patterns[mix]
        source = int(pattern.order[(index - self.starts[mix]) % pattern.period])
        return row_of(self.sources[source], int(self.taken(index)[source]))

    def _mix(self, row: int) -> int:
        return max(at for at, start in enumerate(self.starts) if start <= row)
