"""What an objective gives back: sums and a count, never a mean.

The mean is the loop's: it divides once, over everything that a step saw, so that any split of a batch into
microbatches gives the same step. A mean taken earlier is the most expensive bug of this field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from herd.train.batch import PAIR_WEIGHTS, Batch


@dataclass(frozen=True)
class LossTerms:
    """All on the model's device: to read one there would make a GPU wait, so the loop reads a whole step's at its end.

    total: scalar, the summed loss with its graph; count: scalar, how many tokens or pairs it sums over;
    metrics: scalars without graph, sums over the same count."""

    total: Tensor
    count: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def pair_terms(batch: Batch, loss_P: Tensor, margin_P: Tensor, **metrics_P: Tensor) -> LossTerms:
    """Terms that count pairs by their weights, with `accuracy` (chosen over rejected, a tie counts half) and `margin`
    as metrics too."""
    weights_P = batch.extras[PAIR_WEIGHTS]
    seen = {"accuracy": (margin_P.sign() + 1) / 2, "margin": margin_P, **metrics_P}
    sums = {name: (values_P.detach() * weights_P).sum() for name, values_P in seen.items()}
    return LossTerms((loss_P * weights_P).sum(), weights_P.sum(), sums)


class Objective(Protocol):
    """One way to train. `unit` names what is counted: "tokens" or "pairs"."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The terms of one microbatch. Linear in the batch: the terms of two microbatches add up."""
        ...
