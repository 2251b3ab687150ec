"""Pipeline parallelism: a step's micro-batches go through the stages of a model, which are on several ranks.

    part = cut(model, layers, rank, pp)
    pipeline = Pipeline(part, group)
    terms = pipeline.run(microbatches, objective)       # of each micro-batch; zeros on all ranks but the last

Every rank of a pipeline is given the same micro-batches and follows its list of `play.with_moves`. The objective runs
on the last rank, called with the last stage for its model. Gradients add up in the parameters.

Why this does not stand on torch.distributed.pipelining's runtime (2.13): its stages allocate a buffer for every
micro-batch of the step before the first one arrives, and all of one shape. Pairs come in micro-batches of their own
widths, and the paper frees what is received and sent as early as possible, which is what lets 405B train without
recomputation (section 3.3.2). Its order checker agrees with our orders (tests).

Memory: of a micro-batch in flight a rank holds what autograd keeps and the edge of its graph. What was sent is let go
once it has left, a gradient that was received once it is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.graph import GradientEdge, get_gradient_edge

from herd.devices import device_of
from herd.llama.attention import Layout
from herd.train.batch import Batch
from herd.train.objectives.terms import LossTerms, Objective
from herd.train.parallel.data import local
from herd.train.parallel.play import Move, with_moves
from herd.train.parallel.schedule import Action, Schedule
from herd.train.parallel.stage import LlamaStage, network, stages_of, tied_name
from herd.train.worker import detached

Watch = Callable[[nn.Module, bool], None]  # a stage, and whether this is its last backward of the step


def _nothing(stage: nn.Module, last: bool) -> None:
    pass


@dataclass
class Pipeline:
    """The rank's side of a pipeline. `group` are the ranks that hold one model's stages, in order.

    consecutive      the schedule's N; 0 is the number of ranks
    width            tokens of a row of so many that are on this rank: fewer where context or tensor ranks cut rows
    dtype            of hidden states; None: that of the parameters
    before_backward, after_backward     called around every backward, for whoever reduces or collects gradients
    """

    part: nn.Module
    group: dist.ProcessGroup
    consecutive: int = 0
    width: Callable[[int], int] = int
    dtype: torch.dtype | None = None
    before_backward: Watch = _nothing
    after_backward: Watch = _nothing
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    def run(self, batches: Sequence[Batch], objective: Objective) -> list[LossTerms]:
        """Forward and backward of all micro-batches: their terms without graph on the last rank, zeros elsewhere."""
        return self._run(batches, objective, learn=True)

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch], objective: Objective) -> list[LossTerms]:
        """The same terms, forwards only."""
        return self._run(batches, objective, learn=False)

    def _run(self, batches: Sequence[Batch], objective: Objective, learn: bool) -> list[LossTerms]:
        schedule = Schedule(self.size, len(batches), len(stages_of(self.part)), self.consecutive)
        step = _Step(self, schedule, batches, objective, learn)
        for what in with_moves(schedule, learn)[self.rank]:
            step.do(what)
        step.end()
        names = self._metrics(objective.name, step.terms)
        return step.terms or [self._zeros(names) for _ in batches]

    def _metrics(self, objective: str, terms: list[LossTerms]) -> tuple[str, ...]:
        """The names of an objective's metrics; the last rank tells the others once."""
        if objective not in self._names:
            told: list[Any] = [tuple(terms[0].metrics) if terms else ()]
            dist.broadcast_object_list(told, group=self.group, group_src=self.size - 1)
            self._names[objective] = told[0]
        return self._names[objective]

    def _zeros(self, names: tuple[str, ...]) -> LossTerms:
        zero = torch.zeros((), device=device_of(self.part))
        return LossTerms(zero, zero, dict.fromkeys(names, zero))

    def sum_tied(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Once a step, after `run`: add up the two gradients of a tied embedding, on the first and on the last rank.

        `parameters` are those that gradients are collected on, by name.
        """
        tied = parameters.get(tied_name(self.part) or "")
        if tied is None or not tied.requires_grad or self.size == 1:
            return
        assert tied.grad is not None, "a tied embedding without gradient"
        own = local(tied.grad)
        theirs, peer = torch.empty_like(own), self.size - 1 - self.rank
        moves = [
            dist.P2POp(dist.isend, own.clone(), group=self.group, group_peer=peer),
            dist.P2POp(dist.irecv, theirs, group=self.group, group_peer=peer),
        ]
        for work in dist.batch_isend_irecv(moves):
            work.wait()
        own.add_(theirs)


@dataclass
class _Step:
    """One step of a rank: what is on its way, and what waits for its backward."""

    pipeline: Pipeline
    schedule: Schedule
    batches: Sequence[Batch]
    objective: Objective
    learn: bool
    terms: list[LossTerms] = field(default_factory=list)
    results: dict[Action, Tensor] = field(default_factory=dict)  # made here, for the next stage
    arriving: dict[Action, tuple[dist.Work, Tensor]] = field(default_factory=dict)  # by the action that made it
    leaving: deque[tuple[int, dist.Work, Tensor]] = field(default_factory=deque)  # since which action
    inputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # leaves, by stage and micro-batch
    ends: dict[tuple[int, int], Tensor | GradientEdge] = field(default_factory=dict)  # where the backward begins
    layouts: dict[int, Layout] = field(default_factory=dict)  # of micro-batches that have not been in all stages here
    done: int = 0

    def __post_init__(self) -> None:
        own = self.schedule.stages_of(self.pipeline.rank)
        self.stages = dict(zip(own, stages_of(self.pipeline.part), strict=True))
        self.last = own[-1]
        self.device = device_of(self.pipeline.part)
        self.dtype = self.pipeline.dtype or next(iter(self.pipeline.part.parameters())).dtype

    def do(self, what: Action | Move) -> None:
        if isinstance(what, Move):
            self.send(what) if what.way == "send" else self.receive(what)
        elif what.kind == "forward":
            self.forward(what)
        else:
            self.backward(what)
        if isinstance(what, Action):
            self.done += 1
            self.let_go()

    def forward(self, action: Action) -> None:
        place, stage, batch = (
            (action.stage, action.microbatch),
            self.stages[action.stage],
            self.batches[action.microbatch],
        )
        llama = cast(LlamaStage, network(stage))
        if action.stage:
            received = self.take(Action("forward", action.stage - 1, action.microbatch))
            llama.receive(received.requires_grad_(self.learn), self.layouts.get(action.microbatch))
            if self.learn:
                self.inputs[place] = received
        if llama.last:
            terms = self.objective.terms(stage, batch)
            self.terms.append(detached(terms))
            end = terms.total
        else:
            end = stage(batch.tokens_BT, positions_BT=batch.positions_BT, document_ids_BT=batch.document_ids_BT)
            self.results[action] = end.detach()
        if action.stage == self.last:  # of this rank; graphs hold what they need of the layout
            self.layouts.pop(action.microbatch, None)
        elif action.stage and llama.layout is not None:  # the first may be frozen, and its layout not for learning
            self.layouts[action.microbatch] = llama.layout
        llama.receive(None)
        if self.learn and end.requires_grad:  # of a first stage that is frozen there is nothing to learn
            self.ends[place] = end if llama.last else get_gradient_edge(end)

    def backward(self, action: Action) -> None:
        place, stage = (action.stage, action.microbatch), self.stages[action.stage]
        is_last = action.microbatch == len(self.batches) - 1
        self.pipeline.before_backward(stage, is_last)
        upstream = None
        if action.stage < self.schedule.stages - 1:
            upstream = self.take(Action("backward", action.stage + 1, action.microbatch))
        end = self.ends.pop(place, None)
        if end is not None:
            torch.autograd.backward(end, upstream)
        if action.stage:
            received = self.inputs.pop(place)
            self.results[action] = torch.zeros_like(received) if received.grad is None else received.grad.contiguous()
        self.pipeline.after_backward(stage, is_last)

    def receive(self, move: Move) -> None:
        rows, length = self.batches[move.made.microbatch].tokens_BT.shape
        width = network(self.pipeline.part).config.dim
        buffer = torch.empty(rows, self.pipeline.width(length), width, dtype=self.dtype, device=self.device)
        work = dist.irecv(buffer, group=self.pipeline.group, group_src=move.peer)
        self.arriving[move.made] = cast(dist.Work, work), buffer

    def send(self, move: Move) -> None:
        result = self.results.pop(move.made).contiguous()
        work = dist.isend(result, group=self.pipeline.group, group_dst=move.peer)
        self.leaving.append((self.done, cast(dist.Work, work), result))

    def take(self, made: Action) -> Tensor:
        """The result of another stage, once it is here."""
        if made in self.results:  # of a stage of this rank
            return self.results.pop(made)
        work, buffer = self.arriving.pop(made)
        work.wait()
        return buffer

    def let_go(self) -> None:
        """Forget what has left. gloo says so only to those who wait: an action later, when the other rank is there."""
        while self.leaving:
            since, work, _ = self.leaving[0]
            if self.device.type == "cpu" and since < self.done - 1:
                work.wait()
            elif self.device.type == "cpu" or not work.is_completed():
                return
            self.leaving.popleft()

    def end(self) -> None:
        for _, work, _ in self.leaving:
            work.wait()
        self.leaving.clear()
        left = len(self.results) + len(self.arriving) + len(self.inputs) + len(self.ends)
        assert left == 0, "something was made that nobody took"
