"""The mean of the weights over the annealing steps (paper, section 3.4.3: the final model is this Polyak average)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """A running mean in float32: after n additions it is the plain mean of n weight sets."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Let the weights of this moment enter the mean."""
        self.count += 1
        for name, param in model.named_parameters():
            if not param.requires_grad:
                continue  # frozen: its mean is itself
            if name not in self.mean:
                self.mean[name] = param.detach().float().clone()
            else:
                self.mean[name].lerp_(param.detach().float(), 1.0 / self.count)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Make `model` the mean. Nothing happens when nothing was added."""
        for name, mean in self.mean.items():
            model.get_parameter(name).copy_(mean)

    def begin(self, count: int, params: Mapping[str, Tensor]) -> None:
        """Be the mean of `count` weight sets, in memory that a checkpoint then fills."""
        self.count = count
        self.mean = {name: torch.empty_like(param.detach().float()) for name, param in params.items() if count}
