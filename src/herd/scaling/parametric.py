"""L(N, D) = E + A / N^alpha + B / D^beta, fitted to all runs at once (Hoffmann et al. 2022, approach 3).

Huber loss on the logarithm of the loss and a grid of initial values are Hoffmann's. Two things are ours, because a
ladder of a dozen runs is not one of hundreds: N and D are centred, so that A and B are the two shares of the loss in
the middle of the ladder, and every parameter has a weak prior (`FitSettings`). The priors decide what the runs leave
open and nothing else; what they alone decided is refused by `optimum_refusal`.

Repeated data is not modelled: D counts every token trained on, new or seen before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from herd.errors import FitError
from herd.evaluate.statistics import Interval
from herd.scaling.law import Law
from herd.scaling.records import Cost, RunRecord, budgets
from herd.scaling.settings import FitSettings
from herd.scaling.solver import Floats, Model, Priors, fit_with_noise, replicate

_LETTERS = ("E", "A", "B", "alpha", "beta")
_SHARE_LOG_SD = 1.5  # prior of A and B: wide, they are always seen
_SAFE = (-200.0, 200.0)  # exponents beyond this are absurd refits; they must not overflow
_PRIOR_ONLY = 0.85  # an exponent this little narrower than its prior was not learned from the runs


@dataclass(frozen=True)
class ParametricLaw(Law):
    """`theta_RP` holds log E, log A', log B', log alpha, log beta; A' and B' at the centre. Row 0 is the fit."""

    method: ClassVar[str] = "parametric"
    theta_RP: Floats
    centre: tuple[float, float]

    def loss_draws(self, n: float, d: float) -> Floats:
        floor, size, data = self._terms(np.log(n), np.log(d))
        total: Floats = floor + size + data
        return total

    def optimum_draws(self, flops: float) -> tuple[Floats, Floats, Floats]:
        _, log_a, log_b, log_alpha, log_beta = self.theta_RP.T
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        x0, z0 = np.log(self.centre)
        # With D = flops / (factor N^u), dL/dN = 0 at N^(alpha + u beta) = alpha A (flops/factor)^beta / (u beta B).
        u, log_c = self.cost.power, np.log(flops / self.cost.factor)
        ratio = np.log(alpha / (u * beta)) + (log_a + alpha * x0) - (log_b + beta * z0)
        log_n = (ratio + beta * log_c) / (alpha + u * beta)
        log_d = log_c - u * log_n
        floor, size, data = self._terms(log_n, log_d)
        return np.exp(np.clip(log_n, *_SAFE)), np.exp(np.clip(log_d, *_SAFE)), floor + size + data

    def parameters(self) -> dict[str, Interval]:
        floor, size, data, log_alpha, log_beta = self.theta_RP.T
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        x0, z0 = np.log(self.centre)
        a, b = np.exp(np.clip(size + alpha * x0, *_SAFE)), np.exp(np.clip(data + beta * z0, *_SAFE))
        columns = (np.exp(floor), a, b, alpha, beta)
        return {letter: self._interval(column) for letter, column in zip(_LETTERS, columns, strict=True)}

    @property
    def formula(self) -> str:
        p = {letter: interval.value for letter, interval in self.parameters().items()}
        return f"L(N, D) = {p['E']:.3g} + {p['A']:.3g} / N^{p['alpha']:.3f} + {p['B']:.3g} / D^{p['beta']:.3f}"

    def optimum_refusal(self) -> str:
        spread = self.theta_RP[1:, 3:].std(axis=0) / self.settings.exponent_log_sd
        for letter, share in zip(("alpha", "beta"), spread, strict=True):
            if share > _PRIOR_ONLY:
                return f"the runs say no more about the exponent {letter} than was assumed beforehand"
        return ""

    def _terms(self, log_n: float | Floats, log_d: float | Floats) -> tuple[Floats, Floats, Floats]:
        floor, size, data, log_alpha, log_beta = self.theta_RP.T
        x0, z0 = np.log(self.centre)
        return (
            np.exp(floor),
            np.exp(np.clip(size - np.exp(log_alpha) * (log_n - x0), *_SAFE)),
            np.exp(np.clip(data - np.exp(log_beta) * (log_d - z0), *_SAFE)),
        )


def fit_parametric(records: Sequence[RunRecord], settings: FitSettings | None = None) -> ParametricLaw:
    """Fit the law to at least 6 runs of 2 budgets. Raises FitError when N and D do not vary apart."""
    settings = settings or FitSettings()
    _check(records, settings)
    n = np.array([record.size(settings.size) for record in records], dtype=np.float64)
    d = np.array([record.tokens for record in records], dtype=np.float64)
    flops = np.array([record.flops for record in records])
    loss = np.array([record.loss for record in records])
    centre = (float(np.exp(np.log(n).mean())), float(np.exp(np.log(d).mean())))
    model = _model(np.log(n / centre[0]), np.log(d / centre[1]))
    priors = _priors(float(loss.min()), settings)
    theta, noise = fit_with_noise(model, np.log(loss), _starts(float(loss.min())), priors, delta=settings.huber_delta)
    draws = replicate(
        model,
        np.log(loss),
        theta,
        priors,
        noise,
        delta=settings.huber_delta,
        replicates=settings.replicates,
        rng=np.random.default_rng(settings.seed),
    )
    return ParametricLaw(
        settings=settings,
        cost=Cost.measure(n.tolist(), d.tolist(), flops.tolist()),
        span=(float(flops.min()), float(flops.max())),
        noise=noise,
        theta_RP=np.vstack([theta, draws]),
        centre=centre,
    )


def point_fit(records: Sequence[RunRecord], settings: FitSettings) -> ParametricLaw:
    """The fit alone, without bootstrap: for leaving budgets out."""
    return fit_parametric(records, replace(settings, replicates=0))


def _check(records: Sequence[RunRecord], settings: FitSettings) -> None:
    where = ParametricLaw.method
    if len(records) < 6:
        raise FitError(f"{len(records)} runs cannot fix five parameters", where=where, mend="add runs: 9 or more")
    if len(budgets(records)) < 2:
        raise FitError("all runs have one compute budget", where=where, mend="add budgets: 3 or more")
    log_n = np.log([record.size(settings.size) for record in records])
    log_d = np.log([record.tokens for record in records])
    if np.ptp(log_n) < np.log(1.5):
        raise FitError("all runs have nearly one size", where=where, mend="add sizes a factor of 2 apart")
    if np.ptp(log_d) < np.log(1.5):
        raise FitError("all runs have nearly one number of tokens", where=where, mend="vary the tokens")
    if abs(float(np.corrcoef(log_n, log_d)[0, 1])) > 0.98:
        raise FitError(
            "size and tokens go up and down together, so their effects cannot be told apart",
            where=where,
            mend="train several sizes at each budget",
        )


def _model(x_M: Floats, z_M: Floats) -> Model:
    """Log loss and its derivatives at the runs; x and z are centred log N and log D."""

    def model(theta_RP: Floats) -> tuple[Floats, Floats]:
        floor, size, data, log_alpha, log_beta = theta_RP.T[:, :, None]
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        terms_E = np.broadcast_to(np.exp(floor), (len(theta_RP), len(x_M)))
        terms_A = np.exp(np.clip(size - alpha * x_M, *_SAFE))
        terms_B = np.exp(np.clip(data - beta * z_M, *_SAFE))
        total = terms_E + terms_A + terms_B
        slopes = (terms_E, terms_A, terms_B, -terms_A * alpha * x_M, -terms_B * beta * z_M)
        return np.log(total), np.stack(slopes, axis=-1) / total[..., None]

    return model


def _priors(lowest: float, settings: FitSettings) -> Priors:
    floor, share = settings.floor_share * lowest, (1 - settings.floor_share) / 2 * lowest
    mean = np.log([floor, share, share, settings.exponent, settings.exponent])
    exponent_sd = settings.exponent_log_sd
    return Priors(mean, np.array([settings.floor_log_sd, _SHARE_LOG_SD, _SHARE_LOG_SD, exponent_sd, exponent_sd]))


def _starts(lowest: float) -> Floats:
    """27 initial values; centring makes fewer do than Hoffmann's 4,500."""
    rows = []
    for share, alpha, beta in itertools.product((0.2, 0.5, 0.8), (0.15, 0.35, 0.8), (0.15, 0.35, 0.8)):
        rest = (1 - share) / 2 * lowest
        rows.append(np.log([share * lowest, rest, rest, alpha, beta]))
    return np.array(rows)
