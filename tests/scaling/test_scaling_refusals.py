"""Runs that cannot identify a law: the refusal says why and what to add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scaling_worlds import BUDGETS, law, on_the_way, runs

from herd.errors import FitError
from herd.scaling.fits import fit
from herd.scaling.isoflop import fit_isoflop
from herd.scaling.parametric import fit_parametric
from herd.scaling.records import RunRecord
from herd.scaling.settings import FitSettings

QUICK = FitSettings(replicates=100)


def made(n: float, d: float, loss: float) -> RunRecord:
    return RunRecord(round(n), round(n), round(d), 6 * n * d, loss)


def test_too_few_runs() -> None:
    with pytest.raises(FitError, match="5 runs"):
        fit_parametric(runs(law())[:5], QUICK)


def test_one_budget() -> None:
    with pytest.raises(FitError, match="one compute budget"):
        fit_parametric(runs(law(), budgets=[1e16], sizes=(0.2, 0.4, 0.8, 1.6, 3.2, 6.4)), QUICK)


def test_one_size() -> None:
    records = [made(1e6, d, law()(1e6, d)) for d in np.geomspace(1e8, 1e10, 8)]
    with pytest.raises(FitError, match="one size"):
        fit_parametric(records, QUICK)


def test_one_number_of_tokens_is_not_a_law_of_tokens() -> None:
    """Six models, a decade of N, one D: the tool must say so (minimind issue 786)."""
    records = [made(n, 1e9, law()(n, 1e9)) for n in np.geomspace(1e6, 1e7, 6)]
    with pytest.raises(FitError, match="one number of tokens"):
        fit_parametric(records, QUICK)


def test_size_and_tokens_in_step() -> None:
    records = [made(n, 20 * n, law()(n, 20 * n)) for n in np.geomspace(1e6, 1e8, 8)]
    with pytest.raises(FitError, match="up and down together"):
        fit_parametric(records, QUICK)


def test_two_sizes_are_no_parabola() -> None:
    with pytest.raises(FitError, match="parabola needs three"):
        fit_isoflop(runs(law(), sizes=(0.5, 2.0)), QUICK)


def test_two_budgets_are_no_power_law() -> None:
    with pytest.raises(FitError, match="3 are needed"):
        fit_isoflop(runs(law(), budgets=BUDGETS[:2]), QUICK)


def test_parabolas_that_open_downwards() -> None:
    records = [replace(run, loss=8.0 - run.loss) for run in runs(law())]
    with pytest.raises(FitError, match="opens downwards"):
        fit_isoflop(records, QUICK)


@pytest.mark.parametrize(("sizes", "side"), [((6.0, 9.0, 15.0), "more"), ((0.02, 0.04, 0.08), "fewer")])
def test_minima_at_the_edge(sizes: tuple[float, ...], side: str) -> None:
    with pytest.raises(FitError, match=f"{side} tokens than were tried"):
        fit_isoflop(runs(law(), sizes=sizes), QUICK)


def test_noise_that_hides_the_minima() -> None:
    with pytest.raises(FitError):
        fit_isoflop(runs(law(), noise=0.08, seed=1, sizes=(0.8, 1.0, 1.25, 1.5)), QUICK)


def test_a_budget_at_the_edge_is_left_out_with_a_note() -> None:
    records = runs(law(), budgets=BUDGETS) + runs(law(), budgets=[9.6e16], sizes=(6.0, 9.0, 15.0))
    fitted = fit_isoflop(records, QUICK)
    assert len(fitted.parabolas) == 4
    assert len(fitted.notes) == 1
    assert "more tokens" in fitted.notes[0]


def test_compute_that_is_too_narrow_or_too_far() -> None:
    narrow = fit_parametric(runs(law(), budgets=(1e16, 1.5e16, 2e16)), QUICK)
    with pytest.raises(FitError, match="decades of compute"):
        narrow.predict_loss(*on_the_way(4e16))
    ladder = fit_parametric(runs(law(), noise=1e-4), QUICK)
    ladder.predict_loss(*on_the_way(60 * BUDGETS[-1]))
    with pytest.raises(FitError, match="beyond the largest run") as caught:
        ladder.predict_loss(*on_the_way(70 * BUDGETS[-1]))
    assert "add a budget" in caught.value.mend


def test_a_prediction_too_wide_to_use() -> None:
    fitted = fit_parametric(runs(law(), noise=0.08, seed=3), QUICK)
    with pytest.raises(FitError, match="not determined") as caught:
        fitted.predict_loss(*on_the_way(40 * BUDGETS[-1]))
    assert "scatter" in caught.value.message


def test_runs_on_the_first_plateau_are_refused_and_told_so() -> None:
    """Nine real runs of 130 to 730 steps in the embedded world: most had hardly begun to learn."""
    seen = (
        *((21664, 124416, 2.3097, 1), (49392, 70144, 3.6301, 1), (138688, 34048, 4.7531, 1)),
        *((49392, 140544, 2.6584, 2), (74064, 110080, 3.5701, 2), (196400, 50432, 4.2345, 2)),
        *((49392, 281088, 1.4901, 4), (138688, 136320, 3.3466, 4), (261840, 81024, 3.8995, 4)),
    )
    fitted = fit([RunRecord(n + 98304, n, d, 4.7e10 * c, loss) for n, d, loss, c in seen], QUICK)
    assert fitted.held_out_error is not None
    assert fitted.held_out_error > 0.2
    with pytest.raises(FitError, match="not determined") as caught:
        fitted.predict_loss(400_000, 900_000)
    assert "more steps" in caught.value.mend


def test_exponents_that_only_the_prior_knows() -> None:
    """A loss that hardly depends on size says nothing about alpha, so there is no best size to name."""
    fitted = fit_parametric(runs(law(a=0.001), noise=0.01, sizes=(0.7, 1.0, 1.4)), QUICK)
    with pytest.raises(FitError, match="alpha"):
        fitted.optimal(1e17)


def test_two_budgets_cannot_be_tried_and_are_not_enough() -> None:
    with pytest.raises(FitError, match="2 compute budgets"):
        fit(runs(law(), budgets=(6e15, 4.8e16)), QUICK)


def test_when_nothing_fits_every_reason_is_told() -> None:
    with pytest.raises(FitError, match=r"parametric: .*isoflop: "):
        fit([runs(law())[i] for i in (0, 3, 6, 9)], QUICK)


def test_a_method_that_cannot_be_tried_is_chosen_last() -> None:
    """With three budgets the isoFLOP law cannot be tried on two; the parametric one can."""
    fitted = fit(runs(law(), noise=0.003, budgets=BUDGETS[:3]), QUICK)
    isoflop = next(item for item in fitted.candidates if item.method == "isoflop")
    assert isoflop.held_out_error is None
    assert isoflop.trial_refusal or isoflop.refusal
    assert fitted.law.method == "parametric"


@pytest.mark.parametrize("seed", range(12))
def test_losses_without_a_law_are_refused_or_answered_but_never_crash(seed: int) -> None:
    """Random, constant, huge and spoilt losses: every answer is finite, everything else is a FitError."""
    rng = np.random.default_rng(seed)
    losses = (
        rng.uniform(0.5, 12, 12),
        np.exp(rng.normal(0, 3, 12)),
        3.0 + 1e-9 * rng.normal(size=12),
        4.0 * 10.0 ** rng.integers(0, 2, 12),
    )[seed % 4]
    records = [replace(run, loss=float(loss)) for run, loss in zip(runs(law()), losses, strict=True)]
    mend, found = "", []
    try:
        fitted = fit(records, FitSettings(replicates=30))
        fitted.summary()
        found = [fitted.predict_loss(*on_the_way(1e17)).loss, fitted.optimal(1e17).loss]
    except FitError as error:
        mend = error.mend
    assert bool(found) != bool(mend)
    assert all(np.isfinite([one.low, one.value, one.high]).all() for one in found)
