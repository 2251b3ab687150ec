"""One of many processes: its share of a step's forward and backward, and what they tell each other.

The terms that a process computes are shares of the step's: their sum over all processes is what one process would have.
Data ranks have other rows, context ranks other tokens (or, of pairs, an equal share of the same terms), tensor ranks an
equal share, pipeline ranks but the last nothing. So everything is agreed by one sum a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from herd.train.batch import Batch
from herd.train.kernels import compiled, keep_freed_memory
from herd.train.objectives.terms import LossTerms, Objective
from herd.train.optimiser import Optimiser
from herd.train.parallel.apply import bring_back, counts_pairs, lay_out
from herd.train.parallel.data import before_backward, let_go, local, settle_partial, sum_gradients
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.pipeline import Pipeline
from herd.train.parallel.rows import OneShare, share_context
from herd.train.parallel.stage import roots_of, tied_name
from herd.train.precision import compute_dtype
from herd.train.settings import TrainSettings
from herd.train.worker import Evaluates, Worker, detached, summed


class MeshWorker(Worker):
    """A process of a mesh. `model` is this rank's part; the caller's model is filled when the run ends."""

    def __init__(
        self, part: nn.Module, whole: nn.Module, settings: TrainSettings, mesh: Mesh, whole_rows: bool
    ) -> None:
        self.model, self.settings, self.mesh, self.device = part, settings, mesh, mesh.device
        self.part, self.rank, self.world = mesh.part, mesh.rank, mesh.plan.world_size
        self.plan_said = str(mesh.plan)
        self._whole, self.whole_rows = whole, whole_rows
        self.sharded = mesh.plan.shards > 1
        self.optimiser = Optimiser(part, settings, casts=self.sharded)
        self.roots = roots_of(self.optimiser.compute)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.pipeline = self._pipeline() if mesh.plan.pp > 1 else None

    @staticmethod
    def of(
        model: nn.Module,
        objective: Objective,
        settings: TrainSettings,
        mesh: Mesh,
        weights: Iterable[tuple[str, Tensor]] | None = None,
    ) -> MeshWorker:
        """Lay `model` out over the mesh. Raises SettingError where the plan does not fit model or batches."""
        part = lay_out(model, objective, settings, mesh, weights)
        return MeshWorker(part, model, settings, mesh, counts_pairs(objective))

    @property
    def trained(self) -> Evaluates:
        return self

    def forward_backward(self, batches: Sequence[Batch], objective: Objective) -> list[LossTerms]:
        shares, share = self._shares(batches), self._share(objective)
        with nullcontext() if self.mesh.plan.compile else compiled(*self.roots):
            if self.pipeline is not None:
                found = self.pipeline.run(shares, share)
            else:
                found = [self._one(number, batch, share, len(shares)) for number, batch in enumerate(shares, 1)]
        self.hook.enter("reducing gradients")
        self._reduce()
        return found

    def _one(self, number: int, batch: Batch, objective: Objective, of: int) -> LossTerms:
        self.hook.enter(f"forward of microbatch {number} of {of}")
        terms = objective.terms(self.optimiser.compute, batch)
        self.hook.enter(f"backward of microbatch {number} of {of}")
        before_backward(self.roots[0], number == of, self.mesh.plan.shard)
        terms.total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.collect()
        return detached(terms)

    def _reduce(self) -> None:
        """The gradients of the step: summed over all ranks that have a parameter."""
        masters = self.optimiser.masters
        if not self.sharded:
            self.hook.own_gradients({name: one.grad for name, one in masters.items() if one.grad is not None})
        if self.mesh.plan.tp > 1 and not self.sharded:
            for parameter in masters.values():
                settle_partial(parameter)
        if self.mesh.plan.dp * self.mesh.plan.cp > 1 and not self.sharded:
            sum_gradients(masters.values(), self.mesh)
        if self.pipeline is not None:
            self.pipeline.sum_tied(masters)

    def agreed(self, values: Sequence[float]) -> list[float]:
        return self.mesh.sums(values)

    @torch.no_grad()
    def mean_and_clip(self, count: float) -> float:
        """The norm is that of all shards, each element counted once, and one sum over all processes."""
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        grads = []
        for name, parameter in self.optimiser.masters.items():
            if parameter.grad is not None:
                grads.append(local(parameter.grad))
                squares += torch.linalg.vector_norm(grads[-1], dtype=torch.float32).double().square() / self._copies(
                    name
                )
        norm = math.sqrt(self.mesh.sums([float(squares)])[0]) / count
        self.optimiser.shrink(grads, count, norm)
        return norm

    def _copies(self, name: str) -> int:
        """How many processes have each element of a parameter's gradient."""
        plan, grad = self.mesh.plan, self.optimiser.masters[name].grad
        copies = 1 if self.sharded else plan.dp * plan.cp
        if isinstance(grad, DTensor):
            tensor_axis = len(grad.placements) - 1
            if plan.tp > 1 and isinstance(grad.placements[tensor_axis], Replicate):
                copies *= plan.tp
        return copies * (2 if self.pipeline is not None and tied_name(self.model) == name else 1)

    @torch.no_grad()
    def sums(self, batches: Sequence[Batch], objective: Objective) -> dict[str, float]:
        """Sums of terms over whole batches without training, the same on every process."""
        was = self.optimiser.compute.training
        shares = self._shares([batch.share(self.part) for batch in batches])
        share = self._share(objective)
        for root in (self.optimiser.compute, *self.roots):
            root.eval()
        if self.pipeline is not None:
            found = self.pipeline.evaluate(shares, share)
        else:
            found = [share.terms(self.optimiser.compute, batch) for batch in shares]
        for root in (self.optimiser.compute, *self.roots):
            root.train(was)
        let_go(self.roots)
        own, names = summed(found)
        return dict(zip(("total", "count", *names), self.mesh.sums(own), strict=True))

    def finish(self) -> None:
        bring_back(self.model, self._whole, self.mesh)

    def _share(self, objective: Objective) -> Objective:
        plan = self.mesh.plan
        alike = plan.tp * (plan.cp if self.whole_rows else 1)
        return OneShare(objective, alike) if alike > 1 else objective

    def _shares(self, batches: Sequence[Batch]) -> list[Batch]:
        """This process's tokens of its rows, on its device."""
        plan, place = self.mesh.plan, self.mesh.place
        if plan.cp > 1 and not self.whole_rows:
            batches = [share_context(batch, place.cp, plan.cp, plan.tp) for batch in batches]
        return [batch.to(self.device) for batch in batches]

    def _pipeline(self) -> Pipeline:
        plan = self.mesh.plan
        dtype = compute_dtype(self.settings, self.device)
        return Pipeline(
            self.optimiser.compute,
            self.mesh.group("pp"),
            consecutive=plan.consecutive,
            width=self._width,
            dtype=dtype,
            before_backward=lambda root, last: before_backward(root, last, plan.shard),
            after_backward=lambda root, last: self.optimiser.collect(),
        )

    def _width(self, length: int) -> int:
        """Tokens that lie between layers on this rank of the rows that it is given, `length` long."""
        plan = self.mesh.plan
        if plan.cp > 1 and self.whole_rows:
            return self.mesh.context.share_of(length) // plan.tp
        return -(-length // plan.tp)
