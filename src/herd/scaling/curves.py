"""The isoFLOP picture as points: for each budget its runs, the parabola through them and its minimum.

Sizes are N as the fit counted it (`FitSettings.size`). Drawing itself is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from herd.errors import FitError
from herd.scaling.isoflop import parabola
from herd.scaling.records import Cost, RunRecord, budgets
from herd.scaling.settings import FitSettings

_POINTS = 41


@dataclass(frozen=True)
class Point:
    n_params: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """One budget, its runs by size. `fit` is empty with fewer than three sizes, `minimum` None if it is not inside."""

    flops: float
    runs: tuple[Point, ...]
    fit: tuple[Point, ...]
    minimum: Point | None


def curves(records: Sequence[RunRecord], cost: Cost, settings: FitSettings) -> tuple[Curve, ...]:
    """One curve a budget, smallest first, whichever law was chosen in the end."""
    return tuple(_curve(flops, runs, cost, settings) for flops, runs in budgets(records).items())


def _curve(flops: float, runs: Sequence[RunRecord], cost: Cost, settings: FitSettings) -> Curve:
    by_size = sorted(runs, key=lambda run: run.size(settings.size))
    seen = tuple(Point(run.size(settings.size), run.tokens, run.loss) for run in by_size)
    try:
        fitted = parabola(flops, runs)
    except FitError:
        return Curve(flops, seen, (), None)

    def at(tokens: float) -> Point:
        return Point(cost.size(flops, tokens), tokens, fitted.loss(tokens))

    line = np.geomspace(min(fitted.tokens), max(fitted.tokens), _POINTS)
    minimum = at(fitted.best_tokens) if fitted.opens_up and not fitted.at_edge else None
    return Curve(flops, seen, tuple(at(float(tokens)) for tokens in line), minimum)
