"""Scores of a benchmark's clean part: how much of a score may come from items that were in the training text.

    shares = index.coverage(seen)                     # corpus/contamination.py
    chosen = choose_threshold({"8B": scores_8b, "70B": scores_70b}, shares)
    cleaned(scores_8b, shares, chosen).gain           # S(all) - S(clean): what contamination may have given

Llama 3, section 5.1.4: an item is contaminated from a share T_D of its tokens on, where T_D is the one that gives the
largest significant estimated gain over the models. What "significant" was is not published: here the contaminated
items must score higher than the clean ones with p < 0.05 (Welch), corrected for the number of thresholds (Holm); of
several models the mean gain decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from herd.errors import InputError
from herd.evaluate.statistics import Floats, Interval, holm, mean_interval

THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
FEWEST = 10  # items on either side; below, a part has no score worth the name


@dataclass(frozen=True)
class Cleaned:
    """One model's scores on a benchmark, all of it and its two parts. `dirty_share` of the items is contaminated.

    `clean` and `dirty` are None where a part has fewer than FEWEST items.
    """

    threshold: float
    dirty_share: float
    whole: Interval
    clean: Interval | None
    dirty: Interval | None

    @property
    def gain(self) -> float | None:
        """S(all) - S(clean); None where there is no score of the clean part, and so no estimate."""
        return None if self.clean is None else self.whole.value - self.clean.value


def cleaned(scores: Sequence[float], shares: Sequence[float], threshold: float) -> Cleaned:
    """Split the items at `threshold`. Raises InputError for sequences of unlike length and thresholds outside 0..1."""
    values, dirty = _split(scores, shares, threshold)
    return Cleaned(
        threshold,
        float(dirty.mean()),
        mean_interval(values.tolist()),
        mean_interval(values[~dirty].tolist()) if np.count_nonzero(~dirty) >= FEWEST else None,
        mean_interval(values[dirty].tolist()) if np.count_nonzero(dirty) >= FEWEST else None,
    )


def choose_threshold(
    models: Mapping[str, Sequence[float]], shares: Sequence[float], thresholds: Sequence[float] = THRESHOLDS
) -> float | None:
    """T_D: the threshold of the largest mean gain, of those where any model's is significant; None where none is."""
    gains: dict[float, float] = {}
    p_values: dict[str, float] = {}
    for threshold in thresholds:
        parts = [_split(scores, shares, threshold) for scores in models.values()]
        if not parts or min(int(dirty.sum()) for _, dirty in parts) < FEWEST:
            continue
        if min(int((~dirty).sum()) for _, dirty in parts) < FEWEST:
            continue
        gains[threshold] = float(np.mean([values.mean() - values[~dirty].mean() for values, dirty in parts]))
        for name, (values, dirty) in zip(models, parts, strict=True):
            p_values[f"{threshold} {name}"] = _p_higher(values[dirty], values[~dirty])
    if not gains:
        return None
    corrected = holm(p_values)
    significant = [t for t in gains if any(corrected[f"{t} {name}"] < 0.05 for name in models)]
    return max(significant, key=lambda threshold: gains[threshold], default=None)


def _p_higher(dirty: Floats, clean: Floats) -> float:
    """Of Welch's test that the contaminated items score higher; without any variance the means decide."""
    if not (dirty.std() or clean.std()):
        return 0.0 if dirty.mean() > clean.mean() else 1.0
    return float(stats.ttest_ind(dirty, clean, equal_var=False, alternative="greater").pvalue)


def _split(scores: Sequence[float], shares: Sequence[float], threshold: float) -> tuple[Floats, np.ndarray]:
    values, known = np.asarray(scores, np.float64), np.asarray(shares, np.float64)
    if values.shape != known.shape or not len(values):
        raise InputError(f"{len(values)} scores and {len(known)} shares of contamination: each item needs both")
    if not 0 < threshold <= 1:
        raise InputError(f"a threshold of {threshold} is no share of an item's tokens", mend="above 0, at most 1")
    return values, known >= threshold
