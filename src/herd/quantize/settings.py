"""Which matrices become FP8. Imports no torch.

POLICIES["paper"]        the feed-forward matrices, first and last layer kept: the release (section 6.2)
POLICIES["all-linear"]   attention and feed-forward of every layer
POLICIES["all"]          the output head too; a tied model gets one of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from herd.config import unknown
from herd.errors import NoEffectError, SettingError
from herd.llama.config import LlamaConfig

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")  # Meta's w1, w3, w2
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
HEAD = "lm_head"


@dataclass(frozen=True)
class Fp8Policy:
    """The defaults are the release's: all feed-forward matrices but those of the first and last layer."""

    projections: tuple[str, ...] = FEED_FORWARD
    keep_first: int = 1  # layers at the start that stay as they are
    keep_last: int = 1  # layers at the end
    activation_bound: float | None = 1200.0  # paper section 6.2; None: no bound
    head: bool = False  # the output matrix too; the release kept it

    def __post_init__(self) -> None:
        unknown = set(self.projections) - {*FEED_FORWARD, *ATTENTION}
        if unknown:
            raise SettingError(
                f"{sorted(unknown)} cannot become FP8",
                where="projections",
                mend=f"choose among {', '.join(ATTENTION + FEED_FORWARD)}; the embedding stays in bf16",
            )
        if self.keep_first < 0 or self.keep_last < 0:
            raise SettingError("a negative number of layers to keep", where="keep_first, keep_last")
        if self.activation_bound is not None and not self.activation_bound > 0:
            raise SettingError("the bound on activations must be positive", where="activation_bound")

    def names(self, n_layers: int) -> tuple[str, ...]:
        """The modules that become FP8 in a model of `n_layers`, in the network's order."""
        rooms = [(leaf, "self_attn") for leaf in ATTENTION] + [(leaf, "mlp") for leaf in FEED_FORWARD]
        chosen = [f"{room}.{leaf}" for leaf, room in rooms if leaf in self.projections]
        layers = range(self.keep_first, n_layers - self.keep_last)
        inside = (f"model.layers.{layer}.{leaf}" for layer in layers for leaf in chosen)
        return (*inside, *([HEAD] if self.head else []))

    def selected(self, config: LlamaConfig, where: str) -> tuple[str, ...]:
        """`names` for a model, NoEffectError where that is nothing."""
        names = self.names(config.n_layers)
        if names:
            return names
        raise NoEffectError(
            f"the policy selects no layer of {config.n_layers}: it keeps the first {self.keep_first} "
            f"and the last {self.keep_last}",
            where=where,
            mend="take the policy all-linear, or set keep_first and keep_last lower"
            if self.projections
            else "name projections",
        )

    def shape_of(self, config: LlamaConfig) -> LlamaConfig:
        """The shape of the quantised model: a head in FP8 is no longer the embedding, which a lookup reads in BF16."""
        return replace(config, tie_embeddings=False) if self.head and config.tie_embeddings else config

    @property
    def name(self) -> str:
        """Under which name this policy goes, "" for one of nobody's."""
        return next((name for name, policy in POLICIES.items() if policy == self), "")


POLICIES: Mapping[str, Fp8Policy] = {
    "paper": Fp8Policy(),
    "all-linear": Fp8Policy(ATTENTION + FEED_FORWARD, keep_first=0, keep_last=0),
    "all": Fp8Policy(ATTENTION + FEED_FORWARD, keep_first=0, keep_last=0, head=True),
}


def policy_called(name: str) -> Fp8Policy:
    """One of POLICIES; SettingError that suggests the nearest name."""
    if name in POLICIES:
        return POLICIES[name]
    raise unknown(name, POLICIES, "a policy")
