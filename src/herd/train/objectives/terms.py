"""What an objective gives back: sums and a count, never a mean.

The mean is the loop's: it divides once, over everything that a step saw, so that any split of a batch into
microbatches gives the same step. A mean taken earlier is the most expensive bug of this field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from herd.train.batch import Batch


@dataclass(frozen=True)
class LossTerms:
    """All on the model's device: to read one there would make a GPU wait, so the loop reads a whole step's at its end.

    total: scalar, the summed loss with its graph; count: scalar, how many tokens or pairs it sums over;
    metrics: scalars without graph, sums over the same count."""

    total: Tensor
    count: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def pair_terms(total: Tensor, margin_P: Tensor, **metrics: Tensor) -> LossTerms:
    """Terms that count pairs, with `accuracy` (chosen over rejected, a tie counts half) and `margin` as metrics too."""
    margin_P = margin_P.detach()
    both = {"accuracy": (margin_P.sign() + 1).sum() / 2, "margin": margin_P.sum()}
    return LossTerms(total, torch.full((), float(len(margin_P)), device=margin_P.device), both | metrics)


class Objective(Protocol):
    """One way to train. `unit` names what is counted: "tokens" or "pairs"."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The terms of one microbatch. Linear in the batch: the terms of two microbatches add up."""
        ...
