"""What changes on the way through a model's pre-training, beside each phase's own settings. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from herd.config import need


@dataclass(frozen=True)
class MixChange:
    """From so many tokens of the model's pre-training on, sources are drawn by these weights (paper, section 3.4.1)."""

    tokens: int
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        need(self, "tokens", self.tokens >= 0, "0 or more")
        fine = all(0 <= weight <= 1e9 for weight in self.weights.values()) and sum(self.weights.values()) > 0
        need(self, "weights", fine, "weights of 0 to 1e9, one of them above 0")


@dataclass(frozen=True)
class ContextGates:
    """When a long-context stage is done (paper, section 3.4.2): short-context scores have recovered, and needles are
    found up to its length. A stage that is not done goes on for `more_steps`, `times` times at most.

    Stages are the phases with rows longer than `short_context` that do not anneal. The paper publishes the two
    conditions and neither measure nor tolerance: all numbers but the share of needles are herd's choice.
    """

    more_steps: int  # by which a stage is prolonged
    times: int = 4
    short_context: int = 8192  # paper: the length before the six stages
    tolerance: float = 0.005  # the held-out loss in rows of `short_context` may be over the one before by this share
    found: float = 1.0  # paper: "perfectly"; the share of needles
    depths: int = 10  # evenly from the beginning of the row to its end, a needle each

    def __post_init__(self) -> None:
        for name in ("more_steps", "short_context", "depths"):
            need(self, name, getattr(self, name) >= 1, "at least 1")
        need(self, "times", self.times >= 0, "0 or more")
        need(self, "tolerance", self.tolerance >= 0, "0 or more")
        need(self, "found", 0 <= self.found <= 1, "a share of 0 to 1")

    def holds_for(self, seq_len: int, anneal_steps: int) -> bool:
        """Whether a phase is a long-context stage."""
        return seq_len > self.short_context and not anneal_steps
