"""What every scaling law can be asked, and when it must not answer.

A law holds its fit and the bootstrap refits beside it, so each answer comes with an interval and the name of the
method. An answer that the runs cannot carry is refused with a FitError that says what to add.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from herd.errors import FitError
from herd.evaluate.statistics import Interval
from herd.scaling.records import Cost
from herd.scaling.settings import FitSettings
from herd.scaling.solver import Floats, Noise

_LAWLESS = 0.03  # scatter of log loss; two seeds of a settled run differ by a tenth of that


@dataclass(frozen=True)
class Prediction:
    """A held-out loss in nats a token, for one more run like those of the ladder.

    `reach` is how far beyond the largest budget it looks, in decades of compute per decade the ladder covers.
    `held_out_error` is what the same method got wrong, as a share of the loss, when it predicted the largest budget
    from the smaller ones; None when that was not tried.
    """

    loss: Interval
    n_params: float
    tokens: float
    flops: float
    method: str
    reach: float
    held_out_error: float | None = None


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal model of a budget: its size N, its training tokens D and its loss."""

    flops: float
    n_params: Interval
    tokens: Interval
    loss: Interval
    method: str
    reach: float


@dataclass(frozen=True)
class PowerLaw:
    """coefficient * x ** exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x: float) -> float:
        return float(self.coefficient * x**self.exponent)


# Optimal tokens of training FLOPs as printed in the paper's figure 3. The pair in its text (0.29, 0.53) gives 10.5T
# tokens at 3.8e25 FLOPs and so contradicts the printed 16.55T; this one gives 16.3T.
LLAMA3_TOKENS = PowerLaw(0.299, 0.537)


@dataclass(frozen=True)
class Law(ABC):
    """A fitted law. `span` is the least and the most compute of its runs; `noise` is of log loss."""

    method: ClassVar[str]
    settings: FitSettings
    cost: Cost
    span: tuple[float, float]
    noise: Noise
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def loss_draws(self, n: float, d: float) -> Floats:
        """Loss at N parameters and D tokens: the fit's own first, then one of each bootstrap refit."""

    @abstractmethod
    def optimum_draws(self, flops: float) -> tuple[Floats, Floats, Floats]:
        """Compute-optimal N, D and loss: the fit's own first, then one of each bootstrap refit."""

    @abstractmethod
    def parameters(self) -> dict[str, Interval]:
        """The law's coefficients by their usual letters."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """The law with its numbers, on one line, for people to read."""

    @abstractmethod
    def optimum_refusal(self) -> str:
        """Why the runs do not determine the best split of compute; empty when they do."""

    def loss(self, n: float, d: float) -> float:
        """The fit's loss without interval or refusal: for drawing."""
        return float(self.loss_draws(n, d)[0])

    def predict_loss(self, n: float, d: float, held_out_error: float | None = None) -> Prediction:
        """Loss that a run of N parameters on D tokens will reach. Raises FitError where the runs cannot tell."""
        flops = self.cost.flops(n, d)
        reach = self._reach(flops)
        draws = self.loss_draws(n, d)
        rng = np.random.default_rng(self.settings.seed + 1)
        # One run scatters around the law as the ladder's runs do: t-distributed, as their scale is an estimate.
        draws[1:] *= np.exp(self.noise.sigma * rng.standard_t(self.noise.dof, len(draws) - 1))
        loss = self._interval(draws)
        if loss.halfwidth > self.settings.max_halfwidth * loss.value:
            raise FitError(
                f"the loss at N={n:.3g}, D={d:.3g} is not determined: {loss.value:.3f} within"
                f" {loss.low:.3f} to {loss.high:.3f}; the runs scatter by {self.noise.sigma:.1%} around the law",
                where=self.method,
                mend="add budgets nearer to this compute, or a second seed for each run"
                if self.noise.sigma < _LAWLESS
                else "give the smallest runs more steps: on the first plateau of training they follow no law",
            )
        return Prediction(loss, n, d, flops, self.method, reach, held_out_error)

    def optimal(self, flops: float) -> Optimum:
        """The best split of `flops` into parameters and tokens. Raises FitError where the runs cannot tell."""
        if refusal := self.optimum_refusal():
            raise FitError(
                f"the best split of compute is not determined: {refusal}",
                where=self.method,
                mend="add runs that are clearly too small and clearly too large for their budget",
            )
        reach = self._reach(flops)
        n, d, loss = (self._interval(draws) for draws in self.optimum_draws(flops))
        return Optimum(flops, n, d, loss, self.method, reach)

    def _reach(self, flops: float) -> float:
        covered = math.log10(self.span[1] / self.span[0])
        if covered < self.settings.min_span:
            raise FitError(
                f"the runs cover {covered:.2f} decades of compute; {self.settings.min_span} are the least",
                where=self.method,
                mend="add a budget at least three times smaller or larger",
            )
        reach = math.log10(flops / self.span[1]) / covered
        if reach > self.settings.max_reach:
            raise FitError(
                f"{flops:.2g} FLOPs lie {math.log10(flops / self.span[1]):.2f} decades beyond the largest run, and"
                f" the runs cover only {covered:.2f}",
                where=self.method,
                mend=f"add a budget of {flops / 10 ** (covered * self.settings.max_reach):.2g} FLOPs or more",
            )
        return reach

    def _interval(self, draws: Floats) -> Interval:
        value = float(draws[0])
        if len(draws) < 2:
            return Interval(value, -math.inf, math.inf, self.settings.level)
        tail = (1 - self.settings.level) / 2
        low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
        return Interval(value, float(min(low, value)), float(max(high, value)), self.settings.level)
