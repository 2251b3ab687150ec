"""Robust nonlinear least squares with priors, for many data sets at once: the engine under the parametric laws.

Every row of the arrays is one problem (a bootstrap replicate, or one initial value), and all rows take their
Levenberg-Marquardt steps together, so a bootstrap of hundreds of refits takes a fraction of a second. The Huber loss
is handled by reweighting, the priors as extra residuals.

Shapes: R rows, M measurements, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Model = Callable[[Floats], tuple[Floats, Floats]]
"""theta_RP -> (predictions_RM, jacobian_RMP)."""

_BOUND = 40.0  # parameters are logarithms; beyond e^40 only the arithmetic suffers


@dataclass(frozen=True)
class Priors:
    """Independent normal priors of the parameters."""

    mean_P: Floats
    sd_P: Floats


@dataclass(frozen=True)
class Solution:
    theta_RP: Floats
    cost_R: Floats


@dataclass(frozen=True)
class Noise:
    """Scale of the residuals, and the degrees of freedom that it was estimated with."""

    sigma: float
    dof: float


def minimise(
    model: Model,
    target_RM: Floats,
    start_RP: Floats,
    priors: Priors,
    *,
    sigma: float,
    delta: float,
    centre_RP: Floats | None = None,
    iterations: int = 80,
) -> Solution:
    """Minimise sum Huber((target - model) / sigma) + sum ((theta - centre) / sd)^2 / 2 in every row.

    `delta` is Huber's threshold in units of the residual (not of sigma); `centre_RP` moves the prior means row by row.
    """
    centre = np.broadcast_to(priors.mean_P, start_RP.shape) if centre_RP is None else centre_RP
    theta, damping = start_RP.copy(), np.full(len(start_RP), 1e-2)
    values, jacobian = model(theta)
    cost = _cost(target_RM - values, theta - centre, priors, sigma, delta)
    for _ in range(iterations):
        residual = target_RM - values
        weight = _huber_weight(residual, delta) / sigma**2
        gradient = np.einsum("rmp,rm->rp", jacobian, weight * residual) - (theta - centre) / priors.sd_P**2
        hessian = np.einsum("rmp,rm,rmq->rpq", jacobian, weight, jacobian) + np.diag(priors.sd_P**-2)
        diagonal = np.einsum("rpp->rp", hessian)
        damped = hessian + np.einsum("r,rp,pq->rpq", damping, diagonal, np.eye(theta.shape[1]))
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial = np.clip(theta + np.clip(step, -2, 2), -_BOUND, _BOUND)
        trial_values, trial_jacobian = model(trial)
        trial_cost = _cost(target_RM - trial_values, trial - centre, priors, sigma, delta)
        better = trial_cost < cost
        small = np.abs(trial - theta).max() < 1e-9
        theta = np.where(better[:, None], trial, theta)
        values = np.where(better[:, None], trial_values, values)
        jacobian = np.where(better[:, None, None], trial_jacobian, jacobian)
        cost = np.where(better, trial_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-10, 1e10)
        if small or (damping >= 1e10).all():
            break
    return Solution(theta, cost)


def fit_with_noise(
    model: Model, target_M: Floats, start_RP: Floats, priors: Priors, *, delta: float, sigma: float = 0.01
) -> tuple[Floats, Noise]:
    """The best of many starts, with the noise estimated along the way.

    Sigma decides how much the priors weigh, so fit and estimate take turns until they agree. Huber's threshold is
    `delta`, but never so small beside the noise that the fit becomes a median of few runs (1.345 sigma keeps 95 % of
    the efficiency of least squares).
    """
    target_RM = np.broadcast_to(target_M, (len(start_RP), len(target_M)))
    found = minimise(model, target_RM, start_RP, priors, sigma=sigma, delta=max(delta, 1.345 * sigma))
    theta = found.theta_RP[[int(found.cost_R.argmin())]]
    noise = Noise(sigma, 1.0)
    for _ in range(5):
        noise = residual_noise(model, target_M, theta, priors, sigma=sigma, delta=max(delta, 1.345 * sigma))
        agreed, sigma = abs(noise.sigma - sigma) < 0.02 * sigma, noise.sigma
        threshold = max(delta, 1.345 * sigma)
        theta = minimise(model, target_M[None], theta, priors, sigma=sigma, delta=threshold).theta_RP
        if agreed:
            break
    return theta[0], noise


def residual_noise(
    model: Model, target_M: Floats, theta_1P: Floats, priors: Priors, *, sigma: float, delta: float
) -> Noise:
    """Residual scale over the degrees of freedom left: measurements less the parameters that the data decided."""
    values, jacobian = model(theta_1P)
    residual = target_M - values[0]
    weight = _huber_weight(residual, delta)
    data = np.einsum("mp,m,mq->pq", jacobian[0], weight / sigma**2, jacobian[0])
    used = float(np.trace(np.linalg.solve(data + np.diag(priors.sd_P**-2), data)))
    dof = max(1.0, len(target_M) - used)
    return Noise(max(1e-5, float(np.sqrt((weight * residual**2).sum() / dof))), dof)


def replicate(
    model: Model,
    target_M: Floats,
    theta_P: Floats,
    priors: Priors,
    noise: Noise,
    *,
    delta: float,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """Refit to the losses with fresh noise and prior means drawn anew; returns theta_RP.

    Drawing the prior means as well makes the spread of a parameter that the runs say nothing about equal to the
    prior's, not zero. The scale of the noise is itself uncertain with few runs, hence the chi-square draw.
    """
    if not replicates:
        return np.empty((0, len(theta_P)))
    scale_R1 = noise.sigma * np.sqrt(noise.dof / rng.chisquare(noise.dof, size=(replicates, 1)))
    target_RM = target_M + scale_R1 * rng.standard_normal((replicates, len(target_M)))
    centre_RP = priors.mean_P + priors.sd_P * rng.standard_normal((replicates, len(theta_P)))
    start_RP = np.broadcast_to(theta_P, (replicates, len(theta_P))).copy()
    threshold = max(delta, 1.345 * noise.sigma)
    found = minimise(
        model,
        target_RM,
        start_RP,
        priors,
        sigma=noise.sigma,
        delta=threshold,
        centre_RP=centre_RP,
        iterations=40,
    )
    return found.theta_RP


def _huber_weight(residual: Floats, delta: float) -> Floats:
    weight: Floats = np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
    return weight


def _cost(residual_RM: Floats, off_RP: Floats, priors: Priors, sigma: float, delta: float) -> Floats:
    size = np.abs(residual_RM)
    huber = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum(axis=1) / sigma**2
    total: Floats = huber + ((off_RP / priors.sd_P) ** 2).sum(axis=1) / 2
    return total
