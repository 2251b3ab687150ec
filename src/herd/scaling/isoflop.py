"""The isoFLOP law of the Llama 3 paper, section 3.2.1: a parabola a budget, and power laws through the minima.

For each compute budget the loss is a second-degree polynomial of log tokens; its minimum is the compute-optimal run.
Through the minima go D*(C) = A C^alpha and L*(C) = E + B C^-beta. (A parabola in log N would be the same one
mirrored: at fixed compute log N and log D are a straight line apart.) L* has three parameters and as many points as
budgets, so E and beta carry the weak priors of the parametric law.

Away from the minimum the loss is L*(C) plus the mean curvature times the squared distance in log tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from herd.errors import FitError
from herd.evaluate.statistics import Interval
from herd.scaling.law import Law, PowerLaw
from herd.scaling.records import Cost, RunRecord, budgets
from herd.scaling.settings import FitSettings
from herd.scaling.solver import Floats, Model, Noise, Priors, minimise

_MIN_BUDGETS = 3
_SAFE = (-200.0, 200.0)  # exponents beyond this are absurd refits; they must not overflow
_LOST_MINIMA = 0.2  # share of refits without a minimum from which a budget counts as unable to show one


@dataclass(frozen=True)
class Parabola:
    """loss = c0 + c1 x + c2 x^2 with x = log tokens less `centre`, at one budget."""

    flops: float
    tokens: tuple[float, ...]
    losses: tuple[float, ...]
    centre: float
    coefficients: tuple[float, float, float]

    def loss(self, tokens: float) -> float:
        x = np.log(tokens) - self.centre
        return float(np.polynomial.polynomial.polyval(x, self.coefficients))

    @property
    def opens_up(self) -> bool:
        return self.coefficients[2] > 0

    @property
    def best_tokens(self) -> float:
        """Tokens at the vertex; only a minimum where `opens_up`."""
        return float(np.exp(self.centre - self.coefficients[1] / (2 * self.coefficients[2])))

    @property
    def best_loss(self) -> float:
        return float(self.coefficients[0] - self.coefficients[1] ** 2 / (4 * self.coefficients[2]))

    @property
    def at_edge(self) -> bool:
        """The vertex lies outside of the tokens that were tried."""
        return not min(self.tokens) <= self.best_tokens <= max(self.tokens)


@dataclass(frozen=True)
class IsoFlopLaw(Law):
    """Rows as in every law: the fit first, then the refits. Logarithms of C are taken less `log_c0`."""

    method: ClassVar[str] = "isoflop"
    parabolas: tuple[Parabola, ...]
    log_c0: float
    tokens_R2: Floats  # log D* = level + exponent (log C - log_c0)
    loss_R3: Floats  # log E, log B', log beta
    curvature_R: Floats

    def loss_draws(self, n: float, d: float) -> Floats:
        x = np.log(self.cost.flops(n, d)) - self.log_c0
        off = np.log(d) - (self.tokens_R2 @ np.array([1.0, x]))
        total: Floats = self._best_loss(x) + self.curvature_R * off**2
        return total

    def optimum_draws(self, flops: float) -> tuple[Floats, Floats, Floats]:
        x = np.log(flops) - self.log_c0
        tokens: Floats = np.exp(np.clip(self.tokens_R2 @ np.array([1.0, x]), *_SAFE))
        size = (flops / (self.cost.factor * tokens)) ** (1 / self.cost.power)
        return size, tokens, self._best_loss(x)

    def parameters(self) -> dict[str, Interval]:
        """A and alpha of D*(C) = A C^alpha; E, B and beta of L*(C) = E + B C^-beta."""
        level, exponent = self.tokens_R2.T
        floor, scale, log_beta = self.loss_R3.T
        beta = np.exp(log_beta)
        columns = {
            "A": np.exp(np.clip(level - exponent * self.log_c0, *_SAFE)),
            "alpha": exponent,
            "E": np.exp(floor),
            "B": np.exp(np.clip(scale + beta * self.log_c0, *_SAFE)),
            "beta": beta,
        }
        return {letter: self._interval(column) for letter, column in columns.items()}

    @property
    def formula(self) -> str:
        p = {letter: interval.value for letter, interval in self.parameters().items()}
        optimum = f"D*(C) = {p['A']:.3g} C^{p['alpha']:.3f}"
        return f"{optimum}, L*(C) = {p['E']:.3g} + {p['B']:.3g} / C^{p['beta']:.3f}"

    @property
    def tokens_law(self) -> PowerLaw:
        """D*(C), to be compared with LLAMA3_TOKENS."""
        return PowerLaw(self.parameters()["A"].value, float(self.tokens_R2[0, 1]))

    def optimum_refusal(self) -> str:
        alpha = self.parameters()["alpha"]
        if alpha.low <= 0 or alpha.high >= 1:
            return f"the exponent of optimal tokens is {alpha.value:.2f} within {alpha.low:.2f} to {alpha.high:.2f}"
        return ""

    def _best_loss(self, x: float) -> Floats:
        floor, scale, log_beta = self.loss_R3.T
        best: Floats = np.exp(floor) + np.exp(np.clip(scale - np.exp(log_beta) * x, *_SAFE))
        return best


def parabola(flops: float, runs: Sequence[RunRecord]) -> Parabola:
    """Least squares through the runs of one budget. Raises FitError with fewer than three numbers of tokens."""
    tokens = np.array([run.tokens for run in runs], dtype=np.float64)
    losses = np.array([run.loss for run in runs])
    if len({round(float(value), 2) for value in np.log(tokens)}) < 3:
        raise FitError(
            f"the budget of {flops:.2g} FLOPs has fewer than three sizes, and a parabola needs three",
            where=IsoFlopLaw.method,
            mend="train one size smaller and one larger at this budget",
        )
    centre = float(np.log(tokens).mean())
    c2, c1, c0 = np.polyfit(np.log(tokens) - centre, losses, 2)
    return Parabola(flops, tuple(tokens), tuple(losses), centre, (float(c0), float(c1), float(c2)))


def fit_isoflop(records: Sequence[RunRecord], settings: FitSettings | None = None) -> IsoFlopLaw:
    """Fit the law. Raises FitError unless three budgets show a minimum inside the sizes that were tried."""
    settings = settings or FitSettings()
    curves, notes = _usable([parabola(flops, runs) for flops, runs in budgets(records).items()])
    noise = _noise(curves)
    rng = np.random.default_rng(settings.seed)
    minima = [_minima(curve, noise, settings.replicates, rng) for curve in curves]
    log_tokens_RB, loss_RB, curvature_RB = (np.stack(part, axis=1) for part in zip(*minima, strict=True))
    good = np.all(curvature_RB > 0, axis=1)
    lost = 1 - float(good[1:].sum()) / max(1, settings.replicates)
    if settings.replicates and lost > _LOST_MINIMA:
        raise FitError(
            f"with noise of {noise.sigma:.2g} nats {lost:.0%} of the refits lose a minimum",
            where=IsoFlopLaw.method,
            mend="spread the sizes wider, or add a second seed for each run",
        )
    log_c = np.log([curve.flops for curve in curves])
    log_c0 = float(log_c.mean())
    design = np.stack([np.ones(len(curves)), log_c - log_c0], axis=1)
    typical = float(np.mean([curve.best_loss for curve in curves]))
    return IsoFlopLaw(
        settings=settings,
        cost=Cost.measure(
            [run.size(settings.size) for run in records],
            [run.tokens for run in records],
            [run.flops for run in records],
        ),
        span=(float(np.exp(log_c.min())), float(np.exp(log_c.max()))),
        noise=replace(noise, sigma=noise.sigma / typical),
        notes=notes,
        parabolas=tuple(curves),
        log_c0=log_c0,
        tokens_R2=log_tokens_RB[good] @ np.linalg.pinv(design).T,
        loss_R3=_loss_law(log_c - log_c0, loss_RB[good], noise.sigma / typical, settings, rng),
        curvature_R=curvature_RB[good].mean(axis=1),
    )


def _usable(curves: Sequence[Parabola]) -> tuple[list[Parabola], tuple[str, ...]]:
    """The budgets whose minimum can be seen, and a note for each that cannot."""
    good: list[Parabola] = []
    notes: list[str] = []
    for curve in curves:
        if not curve.opens_up:
            notes.append(f"at {curve.flops:.2g} FLOPs the parabola opens downwards")
        elif curve.best_loss <= 0:
            notes.append(f"at {curve.flops:.2g} FLOPs the parabola dips below a loss of zero")
        elif curve.at_edge:
            side = "more" if curve.best_tokens > max(curve.tokens) else "fewer"
            notes.append(f"at {curve.flops:.2g} FLOPs the minimum lies at {side} tokens than were tried")
        else:
            good.append(curve)
    if len(good) < _MIN_BUDGETS:
        reason = "; ".join(notes) or f"there are {len(curves)} budgets"
        raise FitError(
            f"{len(good)} budgets show a minimum and {_MIN_BUDGETS} are needed: {reason}",
            where=IsoFlopLaw.method,
            mend="add budgets, or sizes on the side where the minimum lies",
        )
    return good, tuple(notes)


def _noise(curves: Sequence[Parabola]) -> Noise:
    """Scatter of the losses around parabolas that share one curvature: the only spare information there is."""
    rows, targets = [], []
    for index, curve in enumerate(curves):
        x = np.log(curve.tokens) - curve.centre
        block = np.zeros((len(x), 2 * len(curves) + 1))
        block[:, 2 * index], block[:, 2 * index + 1], block[:, -1] = 1.0, x, x**2
        rows.append(block)
        targets.append(np.array(curve.losses))
    design, target = np.concatenate(rows), np.concatenate(targets)
    solution, _, rank, _ = np.linalg.lstsq(design, target)
    dof = len(target) - int(rank)
    if dof < 1:
        raise FitError("too few runs to know their noise", where=IsoFlopLaw.method, mend="add a size or a seed")
    return Noise(max(1e-6, float(np.sqrt(((target - design @ solution) ** 2).sum() / dof))), float(dof))


def _minima(curve: Parabola, noise: Noise, replicates: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Log tokens and loss at the minimum, and the curvature: of the fit, then of refits to losses with fresh noise."""
    x = np.log(curve.tokens) - curve.centre
    solve = np.linalg.pinv(np.vander(x, 3, increasing=True))
    scale_R1 = noise.sigma * np.sqrt(noise.dof / rng.chisquare(noise.dof, size=(replicates, 1)))
    fresh = np.array(curve.losses) + scale_R1 * rng.standard_normal((replicates, len(x)))
    c0, c1, c2 = (np.vstack([curve.losses, fresh]) @ solve.T).T
    safe = np.where(c2 > 0, c2, np.nan)
    return curve.centre - c1 / (2 * safe), c0 - c1**2 / (4 * safe), np.nan_to_num(safe)


def _loss_law(x_B: Floats, loss_RB: Floats, sigma: float, settings: FitSettings, rng: np.random.Generator) -> Floats:
    """log E, log B', log beta for each row of minima. Prior means are drawn anew for all but the first row."""
    lowest = float(loss_RB[0].min())
    # With D and N growing alike, L* falls in C with half the exponent that L has in N or D.
    mean = np.log([settings.floor_share * lowest, (1 - settings.floor_share) * lowest, settings.exponent / 2])
    priors = Priors(mean, np.array([settings.floor_log_sd, 1.5, settings.exponent_log_sd]))
    centre = priors.mean_P + priors.sd_P * rng.standard_normal((len(loss_RB), 3))
    centre[0] = priors.mean_P
    start = np.broadcast_to(priors.mean_P, centre.shape).copy()
    target = np.log(np.maximum(loss_RB, 1e-6))
    delta = max(settings.huber_delta, 1.345 * sigma)
    model = _loss_model(x_B)
    return minimise(model, target, start, priors, sigma=sigma, delta=delta, centre_RP=centre).theta_RP


def _loss_model(x_B: Floats) -> Model:
    def model(theta_RP: Floats) -> tuple[Floats, Floats]:
        floor, scale, log_beta = theta_RP.T[:, :, None]
        beta = np.exp(log_beta)
        terms_E = np.broadcast_to(np.exp(floor), (len(theta_RP), len(x_B)))
        terms_B = np.exp(np.clip(scale - beta * x_B, *_SAFE))
        total = terms_E + terms_B
        return np.log(total), np.stack([terms_E, terms_B, -terms_B * beta * x_B], axis=-1) / total[..., None]

    return model
