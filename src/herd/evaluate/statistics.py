"""Intervals and paired tests for scores: how sure a number is, and whether two numbers differ.

Scores are fractions in 0..1 and every interval covers `level` (0.95 unless said). For counts of right and wrong
answers the default is Wilson's interval: it stays in 0..1 and has a width at 0 % and 100 %, where the interval the
Llama 3 paper prints, S ± 1.96 sqrt(S(1-S)/N) (section 5.1.1), has none. Both are here; `paper_halfwidth` is for
comparing with published tables.

What is compared on the same items is compared in pairs (McNemar, paired bootstrap): two overlapping intervals can
still hide a clear difference, and two intervals apart (`intervals_apart`) are the stricter statement. When many
capabilities are tested at once, `holm` keeps the chance of *any* false alarm at the nominal rate.

Not here: reading or writing files, and what the scores mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from herd.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it; `low <= value <= high`, in the unit of the value."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @property
    def halfwidth(self) -> float:
        return (self.high - self.low) / 2

    def covers(self, truth: float) -> bool:
        return self.low <= truth <= self.high


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927). `n` 0 gives the whole range 0..1 around 0.5."""
    if n < 0 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n} is not a proportion")
    if n == 0:
        return Interval(0.5, 0.0, 1.0, level)
    z, share = _normal(level), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n the exact bounds are 0 and 1; rounding must not put the estimate outside of them.
    return Interval(share, max(0.0, min(share, centre - spread)), min(1.0, max(share, centre + spread)), level)


def paper_halfwidth(score: float, n: int) -> float:
    """1.96 sqrt(S(1-S)/N), the interval of the Llama 3 paper, section 5.1.1. HumanEval 0.726 of 164 gives 0.068."""
    if n <= 0 or not 0 <= score <= 1:
        raise InputError(f"a score of {score} over {n} items has no interval")
    return 1.96 * math.sqrt(score * (1 - score) / n)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of any scores: Wilson where they are all 0 or 1, Student's t otherwise, cut to the range 0..1."""
    data = _scores(values)
    if _binary(data):
        return wilson(float(data.sum()), len(data), level)
    mean = float(data.mean())
    if len(data) == 1:
        return Interval(mean, 0.0, 1.0, level)
    half = float(stats.t.ppf((1 + level) / 2, len(data) - 1)) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), level)


def macro_average(groups: Mapping[str, Sequence[float]], level: float = 0.95) -> Interval:
    """The plain mean of the groups' means, each group counting the same however many items it has.

    The groups are strata, so their errors add in squares. The limits are recovered from each group's own interval
    (Zou & Donner 2008), which keeps them honest for groups at 0 % or 100 %, where a variance would be zero.
    """
    if not groups:
        raise InputError("there are no groups to average")
    parts = [mean_interval(values, level) for values in groups.values()]
    mean = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above), level)


def intervals_apart(first: Interval, second: Interval) -> bool:
    """True when the two intervals do not touch: stricter than a test of the difference."""
    return first.high < second.low or second.high < first.low


@dataclass(frozen=True)
class McNemar:
    """Two systems on the same right-or-wrong items: `only_first` right by the first alone, `p` two-sided, exact."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """McNemar's exact test: of the items where the two differ, is either side favoured? (a sign test)"""
    a, b = _paired(first, second)
    if not (_binary(a) and _binary(b)):
        raise InputError("McNemar's test needs right-or-wrong scores", mend="use paired_difference")
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    n = only_first + only_second
    p = float(stats.binomtest(only_first, n, 0.5).pvalue) if n else 1.0
    return McNemar(only_first, only_second, p)


def paired_difference(
    first: Mapping[str, Sequence[float]],
    second: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    replicates: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Macro average of `second` minus that of `first`, item by item in the same groups, by the paired bootstrap.

    Items are resampled inside their group, from its pairs and two imagined ones: half a pair won, half a pair lost,
    one tied (Agresti & Min 2005). Without them a group whose pairs all agree would claim certainty.
    """
    if first.keys() != second.keys() or not first:
        raise InputError("the two sides do not have the same groups", where=f"{sorted(first)} / {sorted(second)}")
    rng = np.random.default_rng(seed)
    mean, draws = 0.0, np.zeros(replicates)
    for name in first:
        a, b = _paired(first[name], second[name])
        difference = b - a
        mean += float(difference.mean()) / len(first)
        draws += _resampled_means(difference, rng, replicates) / len(first)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(min(low, mean)), float(max(high, mean)), level)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979): compare the results with the level as if there had been one test."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, p_values[name] * (len(p_values) - rank)))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class DistributionShift:
    """How far two samples of real numbers lie apart: Kolmogorov-Smirnov's D and p, and distances in their unit."""

    ks: float
    p: float
    wasserstein: float
    mean_difference: float
    spread: float

    @property
    def relative(self) -> float:
        """The Wasserstein distance as a share of the first sample's standard deviation."""
        return self.wasserstein / self.spread if self.spread > 0 else math.inf if self.wasserstein else 0.0


def distribution_shift(first: Sequence[float], second: Sequence[float]) -> DistributionShift:
    """Compare two samples, e.g. reward scores of BF16 and FP8 replies (Llama 3, section 6.2)."""
    a, b = _finite(first), _finite(second)
    test = stats.ks_2samp(a, b, method="asymp")  # the exact method gives up on some samples
    return DistributionShift(
        ks=float(test.statistic),
        p=float(test.pvalue),
        wasserstein=float(stats.wasserstein_distance(a, b)),
        mean_difference=float(b.mean() - a.mean()),
        spread=float(a.std()),
    )


def _normal(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"a level of {level} is not between 0 and 1")
    return float(stats.norm.ppf((1 + level) / 2))


def _finite(values: Sequence[float]) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise InputError("there are no scores")
    if not np.isfinite(data).all():
        raise InputError(f"{int((~np.isfinite(data)).sum())} of {len(data)} scores are not finite")
    return data


def _scores(values: Sequence[float]) -> Floats:
    data = _finite(values)
    if data.min() < 0 or data.max() > 1:
        raise InputError(f"scores lie between 0 and 1, these between {data.min()} and {data.max()}")
    return data


def _binary(data: Floats) -> bool:
    return bool(np.isin(data, (0.0, 1.0)).all())


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[Floats, Floats]:
    a, b = _scores(first), _scores(second)
    if len(a) != len(b):
        raise InputError(f"pairs need the same items: {len(a)} and {len(b)} scores")
    return a, b


def _resampled_means(difference: Floats, rng: np.random.Generator, replicates: int) -> Floats:
    """Means of `replicates` draws with replacement. Differences have few distinct values, so counts are drawn."""
    n = len(difference)
    values, where = np.unique(np.concatenate([difference, [1.0, -1.0, 0.0]]), return_inverse=True)
    weights = np.bincount(where, weights=np.concatenate([np.ones(n), [0.5, 0.5, 1.0]]))
    drawn = rng.multinomial(n, weights / weights.sum(), size=replicates)
    means: Floats = drawn @ values / n
    # The imagined pairs pull the mean towards zero by n / (n + 2); take that shift out again.
    return means + float(difference.mean()) * 2 / (n + 2)
