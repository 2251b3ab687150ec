"""The two-step forecast finds known lines and sigmoids, and declines when the models show none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from herd.errors import FitError, InputError
from herd.scaling.forecast import Forecast, Graded, fit_forecast
from herd.scaling.settings import FitSettings

QUICK = FitSettings(replicates=200)


def nll_of(flops: float) -> float:
    return 1.4 - 0.09 * (math.log10(flops) - 18)


def accuracy_of(nll: float, chance: float = 0.25) -> float:
    return chance + (1 - chance) / (1 + math.exp(9.0 * (nll - 0.9)))


def graded(noise: float, seed: int = 0) -> list[Graded]:
    """Seven models of the ladder from 6e18 to 1e22, and four stronger ones of another family."""
    rng = np.random.default_rng(seed)
    models = []
    for flops in np.geomspace(6e18, 1e22, 7):
        nll = nll_of(float(flops)) + noise * rng.standard_normal()
        models.append(Graded(float(flops), nll, float(np.clip(accuracy_of(nll) + noise * rng.standard_normal(), 0, 1))))
    for nll in (1.0, 0.9, 0.8, 0.7):
        score = float(np.clip(accuracy_of(nll) + noise * rng.standard_normal(), 0, 1))
        models.append(Graded(1e23, nll, score, ladder=False))
    return models


def test_clean_models_give_back_line_and_sigmoid() -> None:
    forecast = fit_forecast(graded(0.0), chance=0.25, settings=QUICK)
    for flops in (1e20, 1e22, 3.8e25):
        assert forecast.nll(flops) == pytest.approx(nll_of(flops), abs=1e-6)
        assert forecast.predict(flops).accuracy.value == pytest.approx(accuracy_of(nll_of(flops)), abs=1e-3)
    assert forecast.accuracy_at(0.85) == pytest.approx(accuracy_of(0.85), abs=1e-3)


def test_the_interval_covers_the_flagship_at_about_its_rate() -> None:
    covered, total = 0, 40
    for seed in range(total):
        forecast = fit_forecast(graded(0.01, seed), chance=0.25, settings=QUICK)
        covered += forecast.predict(3.8e25).accuracy.covers(accuracy_of(nll_of(3.8e25)))
    assert covered >= 34, f"{covered} of {total} at level 0.95"


def test_only_the_ladder_decides_the_line() -> None:
    models = graded(0.0)
    moved = [m if m.ladder else Graded(1e19, m.nll, m.accuracy, ladder=False) for m in models]
    assert fit_forecast(moved, chance=0.25, settings=QUICK).nll(3.8e25) == pytest.approx(nll_of(3.8e25), abs=1e-6)


def refused(models: list[Graded], reason: str) -> None:
    with pytest.raises(FitError, match=reason) as caught:
        fit_forecast(models, chance=0.25, settings=QUICK)
    assert caught.value.mend


def test_too_few_models() -> None:
    refused(graded(0.0)[:3], "3 models")


def test_too_little_compute() -> None:
    refused([Graded(f, nll_of(f), 0.3) for f in (1e20, 1.2e20, 1.4e20, 1.6e20)], "decades")


def test_likelihood_that_does_not_fall() -> None:
    models = [Graded(f, 1.0 + 0.05 * (-1) ** i, 0.3) for i, f in enumerate(np.geomspace(1e18, 1e22, 6))]
    refused(models, "does not clearly fall")


def test_models_at_chance_show_no_sigmoid() -> None:
    models = [
        Graded(float(f), nll_of(float(f)), 0.25 + 0.01 * (i % 2)) for i, f in enumerate(np.geomspace(1e18, 1e22, 6))
    ]
    refused(models, "flat line")


def test_models_at_the_ceiling_show_no_sigmoid() -> None:
    models = [Graded(float(f), nll_of(float(f)), 1.0) for f in np.geomspace(1e18, 1e22, 6)]
    refused(models, "flat line")


def test_a_forecast_far_beyond_the_likelihoods_seen() -> None:
    forecast: Forecast = fit_forecast([m for m in graded(0.0) if m.ladder], chance=0.25, settings=QUICK)
    with pytest.raises(FitError, match="likelihood would be"):
        forecast.predict(1e31)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="not a graded model"):
        Graded(1e18, float("nan"), 0.5)
    with pytest.raises(InputError, match="sigmoid"):
        fit_forecast(graded(0.0), chance=1.0)
