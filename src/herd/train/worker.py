"""One process's part in a step: forward and backward of its microbatches, the gradient norm, the update.

`Worker` is a run of one process, which has all of it and nobody to agree with. `parallel/worker.py` is the same for
one of many; the loop knows no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from herd.devices import device_of
from herd.train.batch import WHOLE, Batch, Part
from herd.train.hooks import Hook
from herd.train.kernels import compiled, keep_freed_memory
from herd.train.objectives.terms import LossTerms, Objective
from herd.train.optimiser import Optimiser
from herd.train.settings import TrainSettings


@runtime_checkable
class Evaluates(Protocol):
    """A model that is on many processes: it says what an objective gives on whole batches, the same on each."""

    def sums(self, batches: Sequence[Batch], objective: Objective) -> dict[str, float]: ...


class Worker:
    """`part` are this process's rows of a step; `is_first` says whether it writes what the run as a whole has."""

    part: Part = WHOLE
    world = 1
    plan_said = ""  # how the run is laid out over its processes
    rank = 0
    hook: Hook = Hook()

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.model, self.settings, self.device = model, settings, device_of(model)
        self.optimiser = Optimiser(model, settings)
        if self.device.type == "cpu":
            keep_freed_memory()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def trained(self) -> nn.Module | Evaluates:
        """What a validation is given."""
        return self.model

    def forward_backward(self, batches: Sequence[Batch], objective: Objective) -> list[LossTerms]:
        """Terms without graph of this process's microbatches; gradients add up on the masters."""
        found = []
        for batch in batches:
            with compiled(self.optimiser.compute):
                terms = objective.terms(self.optimiser.compute, batch.to(self.device))
                terms.total.backward()  # type: ignore[no-untyped-call]
            self.optimiser.collect(alone=len(batches) == 1)
            found.append(detached(terms))
        return found

    def agreed(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        return list(values)

    def mean_and_clip(self, count: float) -> float:
        """Divide the gradients by `count`, clip their norm over all processes; returns the norm before clipping."""
        return self.optimiser.mean_and_clip(count)

    def finish(self) -> None:
        """The run is over: what the caller handed in is to hold what was learnt."""


def detached(terms: LossTerms) -> LossTerms:
    return LossTerms(terms.total.detach(), terms.count, terms.metrics)


def summed(found: Sequence[LossTerms]) -> tuple[list[float], tuple[str, ...]]:
    """[total, count, *metrics] over microbatches, and the metrics' names.

    Read once, after all microbatches are under way: a GPU stands still while a scalar is read.
    """
    scalars: list[Tensor] = [one for terms in found for one in (terms.total, terms.count, *terms.metrics.values())]
    read = torch.stack([scalar.double() for scalar in scalars]).view(len(found), -1).tolist()
    return [sum(column) for column in zip(*read, strict=True)], tuple(found[-1].metrics)


@torch.no_grad()
def measured(model: Any, objective: Objective, batches: Sequence[Batch]) -> Mapping[str, float]:
    """Sums over whole batches without training: `total`, `count` and the objective's metrics. None without batches."""
    if isinstance(model, Evaluates):
        return model.sums(batches, objective)
    was, device = model.training, device_of(model)
    sums, names = summed([objective.terms(model.eval(), batch.to(device)) for batch in batches])
    model.train(was)
    return dict(zip(("total", "count", *names), sums, strict=True))
