"""The settings of the scaling room: how laws are fitted and how the ladder of small runs is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herd.errors import SettingError


@dataclass(frozen=True)
class FitSettings:
    """How a law is fitted and when it is refused. Priors and limits are ours unless a source is named."""

    size: Literal["body", "all"] = "body"
    """What counts as N: parameters without the vocabulary matrices, or all. Small models are mostly vocabulary."""
    huber_delta: float = 1e-3  # on log loss; Hoffmann et al. 2022, section 3.3
    exponent: float = 0.35
    """Centre of the prior of both exponents: between Hoffmann's 0.34/0.28 and Besiroglu et al. 2024's 0.35/0.37."""
    exponent_log_sd: float = 0.5
    """A factor of 1.65 either way is one standard deviation: 0.13 to 0.95 is likely. Runs that say more win."""
    floor_share: float = 0.5
    """Centre of the prior of the irreducible loss E, as a share of the lowest loss seen."""
    floor_log_sd: float = 1.0
    replicates: int = 400
    level: float = 0.95
    seed: int = 0
    min_span: float = 0.5
    """Decades of compute that the ladder must cover at least."""
    max_reach: float = 2.0
    """Decades extrapolated per decade covered. Llama 3: 3.6 decades from 3.2, a reach of 1.1."""
    max_halfwidth: float = 0.15
    """A predicted loss less certain than this, as a share of itself, is refused."""

    def __post_init__(self) -> None:
        positive = ("huber_delta", "exponent", "exponent_log_sd", "floor_log_sd", "min_span", "max_reach")
        for name in positive:
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be positive, not {getattr(self, name)}", where="FitSettings")
        if not 0 < self.level < 1 or not 0 < self.floor_share < 1:
            raise SettingError("level and floor_share lie between 0 and 1", where="FitSettings")
        if self.replicates < 0:
            raise SettingError("replicates cannot be negative", where="FitSettings")
