"""How well will the flagship do on a benchmark? The paper's two steps (Llama 3, section 3.2.1, figure 4).

1. Negative log-likelihood of the correct answer, normalised per character, is linear in log compute. Only models of
   the ladder count here: others were trained on another mixture.
2. Accuracy is a sigmoid of that likelihood. Every model may count, older families too, and must where the ladder's
   own models are all near chance.

    accuracy = chance + (ceiling - chance) / (1 + exp(slope * (nll - middle)))

Refused with the reason: too few models, likelihoods that do not fall with compute, accuracies that do not leave
chance (or the ceiling), a forecast far outside of the likelihoods seen. Measuring the likelihoods is done elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from herd.errors import FitError, InputError
from herd.evaluate.statistics import Interval
from herd.scaling.settings import FitSettings
from herd.scaling.solver import Floats, Model, Priors, fit_with_noise, replicate

METHOD = "two-step downstream forecast"
_MIN_MODELS = 4
_MIN_RISE = 0.05  # accuracy gained over the models, beyond the noise, below which a sigmoid is a flat line
_MAX_HALFWIDTH = 0.25  # of the forecast accuracy


@dataclass(frozen=True)
class Graded:
    """One model on one benchmark: training FLOPs, mean NLL of the right answers in nats a character, accuracy."""

    flops: float
    nll: float
    accuracy: float
    ladder: bool = True

    def __post_init__(self) -> None:
        if not (self.flops > 0 and math.isfinite(self.nll) and 0 <= self.accuracy <= 1):
            raise InputError(f"not a graded model: {self}")


@dataclass(frozen=True)
class Downstream:
    """A forecast: likelihood and accuracy that `flops` of training will reach."""

    flops: float
    nll: Interval
    accuracy: Interval
    method: str = METHOD


@dataclass(frozen=True)
class Forecast:
    """Both fitted steps; row 0 is the fit, the others its bootstrap refits."""

    line_R2: Floats  # nll = level + slope * (log10 flops - centre)
    centre: float
    line_noise: float
    line_dof: int
    sigmoid_R2: Floats  # middle, log slope
    sigmoid_noise: float
    chance: float
    ceiling: float
    nll_seen: tuple[float, float]
    settings: FitSettings

    def nll(self, flops: float) -> float:
        """Step 1's line, for drawing."""
        return float(self.line_R2[0] @ np.array([1.0, math.log10(flops) - self.centre]))

    def accuracy_at(self, nll: float) -> float:
        """Step 2's curve, for drawing."""
        return float(self._sigmoid(np.array([nll]), self.sigmoid_R2[:1])[0])

    def predict(self, flops: float) -> Downstream:
        """Forecast with intervals. Raises FitError where the models cannot tell."""
        rng = np.random.default_rng(self.settings.seed + 1)
        draws = self.line_R2 @ np.array([1.0, math.log10(flops) - self.centre])
        draws[1:] += self.line_noise * rng.standard_t(self.line_dof, len(draws) - 1)
        low, high = self.nll_seen
        if draws[0] < low - (high - low) or draws[0] > high + (high - low):
            raise FitError(
                f"at {flops:.2g} FLOPs the likelihood would be {draws[0]:.3f}; seen are {low:.3f} to {high:.3f}",
                where=METHOD,
                mend="add stronger models to the second step (of another family, if need be)",
            )
        scores = self._sigmoid(draws, self.sigmoid_R2)
        scores[1:] += self.sigmoid_noise * rng.standard_normal(len(scores) - 1)
        accuracy = self._interval(np.clip(scores, 0.0, 1.0))
        if accuracy.halfwidth > _MAX_HALFWIDTH:
            raise FitError(
                f"the accuracy at {flops:.2g} FLOPs is not determined: {accuracy.low:.2f} to {accuracy.high:.2f}",
                where=METHOD,
                mend="add models between the ladder and the flagship, or a benchmark with more items",
            )
        return Downstream(flops, self._interval(draws), accuracy)

    def _sigmoid(self, nll: Floats, theta_R2: Floats) -> Floats:
        middle, log_slope = theta_R2.T
        exponent = np.clip(np.exp(log_slope) * (nll - middle), -500, 500)
        score: Floats = self.chance + (self.ceiling - self.chance) / (1 + np.exp(exponent))
        return score

    def _interval(self, draws: Floats) -> Interval:
        tail = (1 - self.settings.level) / 2
        low, high = np.quantile(draws[1:], [tail, 1 - tail])
        return Interval(float(draws[0]), float(min(low, draws[0])), float(max(high, draws[0])), self.settings.level)


def fit_forecast(
    models: Sequence[Graded], *, chance: float = 0.0, ceiling: float = 1.0, settings: FitSettings | None = None
) -> Forecast:
    """Fit both steps. `chance` is the accuracy of guessing (0.25 for four choices)."""
    settings = settings or FitSettings()
    if not 0 <= chance < ceiling <= 1:
        raise InputError(f"chance {chance} and ceiling {ceiling} leave no room for a sigmoid")
    line_R2, centre, line_noise, line_dof = _line([model for model in models if model.ladder], settings)
    sigmoid_R2, sigmoid_noise = _sigmoid_fit(models, chance, ceiling, settings)
    seen = [model.nll for model in models]
    return Forecast(
        line_R2=line_R2,
        centre=centre,
        line_noise=line_noise,
        line_dof=line_dof,
        sigmoid_R2=sigmoid_R2,
        sigmoid_noise=sigmoid_noise,
        chance=chance,
        ceiling=ceiling,
        nll_seen=(min(seen), max(seen)),
        settings=settings,
    )


def _line(models: Sequence[Graded], settings: FitSettings) -> tuple[Floats, float, float, int]:
    """Least squares of NLL on log10 FLOPs, and draws of level and slope from their t distributions."""
    if len(models) < _MIN_MODELS:
        raise FitError(
            f"{len(models)} models of the ladder cannot show a line and its scatter",
            where=METHOD,
            mend=f"grade {_MIN_MODELS} or more",
        )
    x = np.log10([model.flops for model in models])
    nll = np.array([model.nll for model in models])
    if np.ptp(x) < settings.min_span:
        raise FitError(
            f"the models cover {np.ptp(x):.2f} decades of compute", where=METHOD, mend="grade smaller models too"
        )
    centre, dof = float(x.mean()), len(x) - 2
    slope, level = (float(value) for value in np.polyfit(x - centre, nll, 1))
    noise = max(1e-9, float(np.sqrt(((nll - level - slope * (x - centre)) ** 2).sum() / dof)))
    slope_sd = noise / float(np.sqrt(((x - centre) ** 2).sum()))
    if slope + float(stats.t.ppf((1 + settings.level) / 2, dof)) * slope_sd >= 0:
        raise FitError(
            f"the likelihood does not clearly fall with compute: slope {slope:.3g} ± {slope_sd:.2g} a decade",
            where=METHOD,
            mend="grade models further apart, or use a benchmark that small models can see",
        )
    rng = np.random.default_rng(settings.seed)
    scale = np.sqrt(dof / rng.chisquare(dof, settings.replicates))
    levels = level + scale * noise / math.sqrt(len(x)) * rng.standard_normal(settings.replicates)
    slopes = slope + scale * slope_sd * rng.standard_normal(settings.replicates)
    return np.vstack([[level, slope], np.stack([levels, slopes], axis=1)]), centre, noise, dof


def _sigmoid_fit(
    models: Sequence[Graded], chance: float, ceiling: float, settings: FitSettings
) -> tuple[Floats, float]:
    nll = np.array([model.nll for model in models])
    accuracy = np.array([model.accuracy for model in models])
    width = float(np.ptp(nll))
    if width <= 0:
        raise FitError("all models have one likelihood", where=METHOD, mend="grade models of other sizes")
    # So wide that they only keep the arithmetic in range: this fit has no opinion of its own.
    priors = Priors(np.array([nll.mean(), math.log(4 / width)]), np.array([20 * width, 4.0]))
    shift = np.linspace(-1, 1, 5) * width
    starts = np.array([[nll.mean() + s, math.log(k / width)] for s in shift for k in (1.0, 4.0, 16.0)])
    model = _sigmoid_model(nll, chance, ceiling)
    theta, noise = fit_with_noise(model, accuracy, starts, priors, delta=settings.huber_delta)
    fitted = model(theta[None])[0][0]
    rise = float(np.ptp(fitted))
    if rise < max(_MIN_RISE, 2 * noise.sigma) or fitted.min() > ceiling - _MIN_RISE:
        raise FitError(
            f"the accuracies rise by {rise:.3f} from one end to the other: no sigmoid can be told from a flat line",
            where=METHOD,
            mend="add stronger models (of another family, if need be) to the second step",
        )
    draws = replicate(
        model,
        accuracy,
        theta,
        priors,
        noise,
        delta=settings.huber_delta,
        replicates=settings.replicates,
        rng=np.random.default_rng(settings.seed + 2),
    )
    return np.vstack([theta, draws]), noise.sigma


def _sigmoid_model(nll_M: Floats, chance: float, ceiling: float) -> Model:
    def model(theta_RP: Floats) -> tuple[Floats, Floats]:
        middle, slope = theta_RP[:, :1], np.exp(theta_RP[:, 1:])
        exponent = np.clip(slope * (nll_M - middle), -500, 500)
        share = 1 / (1 + np.exp(exponent))
        steep = (ceiling - chance) * share * (1 - share)
        return chance + (ceiling - chance) * share, np.stack([steep * slope, -steep * exponent], axis=-1)

    return model
