"""Which layers become FP8. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from herd.errors import SettingError

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Fp8Policy:
    """The defaults are the release's: all feed-forward matrices but those of the first and last layer."""

    projections: tuple[str, ...] = FEED_FORWARD  # Meta's w1, w3, w2
    keep_first: int = 1  # layers at the start that stay as they are
    keep_last: int = 1  # layers at the end
    activation_bound: float | None = 1200.0  # paper section 6.2; None: no bound

    def __post_init__(self) -> None:
        unknown = set(self.projections) - set(FEED_FORWARD)
        if unknown:
            raise SettingError(
                f"{sorted(unknown)} cannot become FP8",
                where="projections",
                mend=f"choose among {', '.join(FEED_FORWARD)}; attention and embeddings stay in bf16",
            )
        if self.keep_first < 0 or self.keep_last < 0:
            raise SettingError("a negative number of layers to keep", where="keep_first, keep_last")
        if self.activation_bound is not None and not self.activation_bound > 0:
            raise SettingError("the bound on activations must be positive", where="activation_bound")

    def names(self, n_layers: int) -> tuple[str, ...]:
        """The modules that become FP8 in a model of `n_layers`."""
        layers = range(self.keep_first, n_layers - self.keep_last)
        return tuple(f"model.layers.{layer}.mlp.{leaf}" for layer in layers for leaf in self.projections)
