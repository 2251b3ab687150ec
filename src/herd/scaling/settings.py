"""The settings of the scaling room: how laws are fitted and how the ladder of small runs is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herd.errors import SettingError
from herd.llama.config import LlamaConfig


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


@dataclass(frozen=True)
class LadderSettings:
    """The small runs from which the flagship is predicted, all in terms of the flagship.

    `spread` are the sizes tried at a budget, around the size that the budget should suit. The exponents are the
    paper's (section 3.2.1), read between the ends of its printed ranges; everything else is the recipe's.
    """

    flagship: LlamaConfig
    flagship_tokens: int
    flagship_batch: int
    """Tokens a step."""
    flagship_lr: float
    seq_len: int
    budgets: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
    """Shares of the flagship's compute."""
    spread: tuple[float, ...] = (0.4, 1.0, 2.5)
    size_exponent: float = 1 - 0.537  # N* = C / (6 D*), and D* grows with C^0.537, figure 3
    batch_exponent: float = 0.374  # 250K tokens at 6e18 FLOPs to 4M at 1e22
    lr_exponent: float = -0.116  # 4e-4 at 40M parameters to 2e-4 at 16B
    warmup_share: float = 0.05
    """Share of a run's steps, at most 2,000 steps (the paper's number for all sizes)."""
    min_steps: int = 50
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.budgets or not all(0 < share < 1 for share in self.budgets):
            raise SettingError("budgets are shares of the flagship's compute, between 0 and 1", where="ladder.budgets")
        if len(self.spread) < 3 or min(self.spread) <= 0:
            raise SettingError("a parabola needs three sizes at each budget", where="ladder.spread")
        for name in ("flagship_tokens", "flagship_batch", "flagship_lr", "seq_len", "min_steps"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be positive", where=f"ladder.{name}")
        if not self.seeds or not 0 <= self.warmup_share < 1:
            raise SettingError("a ladder needs a seed, and a warm-up share below 1", where="ladder")
