"""The law to trust: fit every candidate, let each predict the largest budget from the smaller ones, keep the best.

    fitted = fit(records)
    fitted.predict_loss(n=7e6, d=4e8).loss     # Interval(value=2.31, low=2.24, high=2.39)
    fitted.optimal(flops=1.7e16)               # N, D and loss, each with its interval

The error of that trial by fire stands beside every prediction. Candidates that the runs cannot identify are kept
with the reason of their refusal; when none is left, `fit` raises FitError with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from herd.errors import FitError
from herd.evaluate.statistics import Interval
from herd.scaling.curves import Curve, curves
from herd.scaling.isoflop import fit_isoflop
from herd.scaling.law import Law, Optimum, Prediction
from herd.scaling.parametric import fit_parametric
from herd.scaling.records import RunRecord, budgets
from herd.scaling.settings import FitSettings

Fitter = Callable[[Sequence[RunRecord], FitSettings], Law]

# In this order when the trial leaves them equal: the parametric law uses every run at once.
METHODS: dict[str, Fitter] = {"parametric": fit_parametric, "isoflop": fit_isoflop}


@dataclass(frozen=True)
class Candidate:
    """One method on these runs. `held_out_error`: mean |log(predicted / seen)| over the runs of the largest budget."""

    method: str
    held_out_error: float | None
    refusal: str = ""
    trial_refusal: str = ""


@dataclass(frozen=True)
class ScalingFit:
    """The chosen law, what it was chosen from, and the runs."""

    law: Law
    candidates: tuple[Candidate, ...]
    records: tuple[RunRecord, ...]

    @property
    def held_out_error(self) -> float | None:
        return next(item.held_out_error for item in self.candidates if item.method == self.law.method)

    def predict_loss(self, n: float, d: float) -> Prediction:
        """Held-out loss of a run of N parameters (as `settings.size` counts) on D tokens, with its interval."""
        return self.law.predict_loss(n, d, self.held_out_error)

    def optimal(self, flops: float) -> Optimum:
        """The best N and D for a budget, with intervals."""
        return self.law.optimal(flops)

    def curves(self) -> tuple[Curve, ...]:
        """The isoFLOP curves, for drawing, whichever law was chosen."""
        return curves(self.records, self.law.cost, self.law.settings)

    def summary(self) -> dict[str, Any]:
        """Everything a report needs, as plain values."""
        return {
            "method": self.law.method,
            "held_out_error": self.held_out_error,
            "candidates": [asdict(item) for item in self.candidates],
            "parameters": {name: _plain(value) for name, value in self.law.parameters().items()},
            "noise": self.law.noise.sigma,
            "span": list(self.law.span),
            "notes": list(self.law.notes),
            "formula": self.law.formula,
            "curves": [asdict(curve) for curve in self.curves()],
        }


def fit(records: Sequence[RunRecord], settings: FitSettings | None = None) -> ScalingFit:
    """Fit all methods and choose the one that best predicts the largest budget from the smaller ones.

    A method that cannot be tried, because too few budgets are left without the largest, is chosen only when no
    other could be tried either. Raises FitError when no method can be fitted.
    """
    settings = settings or FitSettings()
    if (found := len(budgets(records))) < _MIN_BUDGETS:
        raise FitError(f"the {len(records)} runs have {found} compute budgets; 3 are the least", mend=_MEND)
    laws: dict[str, Law] = {}
    candidates: list[Candidate] = []
    for method, fitter in METHODS.items():
        try:
            laws[method] = fitter(records, settings)
        except FitError as error:
            candidates.append(Candidate(method, None, refusal=f"{error.message}; {error.mend}"))
            continue
        try:
            candidates.append(Candidate(method, held_out_error(records, method, settings)))
        except FitError as error:
            candidates.append(Candidate(method, None, trial_refusal=error.message))
    if not laws:
        reasons = "; ".join(f"{item.method}: {item.refusal}" for item in candidates)
        raise FitError(f"no scaling law can be fitted to these {len(records)} runs: {reasons}", mend=_MEND)
    chosen = min(
        (item for item in candidates if item.method in laws),
        key=lambda item: math.inf if item.held_out_error is None else item.held_out_error,
    )
    return ScalingFit(laws[chosen.method], tuple(candidates), tuple(records))


_MIN_BUDGETS = 3  # two for the law, one to try it on
_MEND = "a ladder of 4 budgets a factor of 2 or more apart with 3 sizes each can be fitted"


def held_out_error(records: Sequence[RunRecord], method: str, settings: FitSettings) -> float:
    """Mean |log(predicted / seen)| over the runs of the largest budget, fitted to the smaller ones."""
    groups = list(budgets(records).values())
    smaller = [run for group in groups[:-1] for run in group]
    law = METHODS[method](smaller, replace(settings, replicates=0))
    errors = [math.log(law.loss(run.size(settings.size), run.tokens) / run.loss) for run in groups[-1]]
    return sum(abs(error) for error in errors) / len(errors)


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
