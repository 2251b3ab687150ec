"""Ladders of runs drawn from known laws, so that tests can compare a fit with the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from herd.scaling.records import RunRecord

TruthLaw = Callable[[float, float], float]
BUDGETS = (6e15, 1.2e16, 2.4e16, 4.8e16)
SIZES = (0.4, 1.0, 2.5)


def law(e: float = 1.82, a: float = 482.0, b: float = 2085.0, alpha: float = 0.348, beta: float = 0.366) -> TruthLaw:
    """Defaults: the refit of Hoffmann's runs by Besiroglu et al. 2024."""
    return lambda n, d: e + a / n**alpha + b / d**beta


def runs(
    truth: TruthLaw,
    noise: float = 0.0,
    seed: int = 0,
    budgets: Sequence[float] = BUDGETS,
    sizes: Sequence[float] = SIZES,
    tokens_per_parameter: float = 20.0,
) -> list[RunRecord]:
    """One run a size and budget; `noise` is the standard deviation of log loss."""
    rng = np.random.default_rng(seed)
    found = []
    for flops in budgets:
        middle = (flops / 6 / tokens_per_parameter) ** 0.5
        for factor in sizes:
            n = round(middle * factor)
            d = round(flops / 6 / n)
            loss = truth(n, d) * float(np.exp(noise * rng.standard_normal()))
            found.append(RunRecord(n, n, d, 6.0 * n * d, loss))
    return found


def on_the_way(flops: float, tokens_per_parameter: float = 20.0) -> tuple[float, float]:
    """N and D of a flagship of the same proportions."""
    n = (flops / 6 / tokens_per_parameter) ** 0.5
    return n, flops / 6 / n
