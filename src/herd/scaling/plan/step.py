"""One optimiser step, played event by event: `simulate(job, way)` -> Step.

Each rank of a pipeline runs the trainer's own schedule (train/parallel/schedule.py). An action takes what its layers
take, and what its stage waits for from the ranks that share its parameters:

- Sharded parameters are gathered before a stage's first forward of the step ("keep", the paper's choice) or before
  every use ("reshard"), a layer ahead of its use: the first layer's gather is waited for, the others as far as they
  take longer than the layer before them computes.
- Gradients add up in fp32. "keep" reduces them once a step, in the last backward of a stage, a layer behind; "reshard"
  in every backward, so that no rank ever holds all gradients of its layers.
- A collective beside a computation takes multiprocessors from it.
- Hidden states go from stage to stage beside everything else.

Then the optimiser goes over this rank's shard, after the ranks have agreed on the gradients' norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from herd.scaling.plan.efficiency import CHANNELS
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import DIRECTIONS, Costs, Direction, Parts
from herd.scaling.plan.network import Group
from herd.train.parallel.play import Played, played
from herd.train.parallel.schedule import Action, Schedule

_OPTIMISER_BYTES = 34  # a parameter: AdamW reads 16 and writes 12 in fp32, the norm reads 4 more, a BF16 copy is 2


@dataclass(frozen=True)
class Step:
    """What a step takes. `parts` are seconds of the mean rank and add up to `seconds`."""

    seconds: float
    parts: Mapping[str, float]
    timeline: tuple[Played, ...]  # of one pipeline
    microbatches: int
    mfu: float
    tokens_per_second: float  # a GPU
    bubble: float  # time at rest over time at work


@dataclass(frozen=True)
class Stepping:
    """The times of a job done in one way."""

    job: Job
    way: Way

    @cached_property
    def costs(self) -> Costs:
        return Costs(self.job, self.way)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        return self.way.plan.stage_layers(self.job.config.n_layers)

    @cached_property
    def microbatches(self) -> int:
        return self.way.microbatches(self.job)

    @cached_property
    def schedule(self) -> Schedule:
        """What is played: of very many micro-batches as many as show how it begins, goes on and ends."""
        return self.way.schedule(self.job)

    @cached_property
    def busiest(self) -> float:
        """Seconds that a micro-batch takes on the rank that works longest: the pace of what is not played."""
        return max(
            sum(self.seconds(Action(way, s, 1)) for way in DIRECTIONS for s in self.schedule.stages_of(rank))
            for rank in range(self.schedule.pp)
        )

    @cached_property
    def _layer(self) -> Mapping[Direction, Parts]:
        return {way: self.costs.layer(way) for way in DIRECTIONS}

    @cached_property
    def _ends(self) -> Mapping[tuple[str, Direction], Parts]:
        first = {("first", way): self.costs.embedding(way) for way in DIRECTIONS}
        return first | {("last", way): self.costs.output(way) for way in DIRECTIONS}

    def compute(self, action: Action) -> Parts:
        """Of one micro-batch in one stage, without the ranks that share its parameters."""
        parts = self._layer[action.kind] * self.layers[action.stage]
        parts += Parts(elementwise=self.costs.overhead.microbatch / 2)
        if action.stage == 0:
            parts += self._ends["first", action.kind]
        if action.stage == self.schedule.stages - 1:
            parts += self._ends["last", action.kind]
        return parts

    # --- the ranks that share parameters ---

    @cached_property
    def _collectives(self) -> tuple[float, float]:
        """Seconds to gather a layer's parameters, and to reduce its gradients, were nothing else done."""
        plan, sharing = self.way.plan, self.way.sharing
        if plan.dp * plan.cp == 1:
            return 0.0, 0.0
        numbers, fabric = self.job.config.layer_parameters() / plan.tp, self.job.fabric
        narrow = 1 if self.way.fp8 and self.job.software.fp8_gather else self.costs.wide
        # What is sent is copied into one piece, and out of it where it arrives.
        copied = self.costs.stream(2 * numbers)
        if plan.shard == "none":
            return 0.0, fabric.all_reduce(4 * numbers, sharing) + 4 * copied
        gather = fabric.ring(narrow * numbers, sharing) + narrow * copied
        return gather, fabric.reduce(4 * numbers, sharing) + 4 * copied

    def waits(self, action: Action) -> float:
        """Seconds that an action waits for parameters that are gathered for every use."""
        if self.way.plan.shard != "reshard":
            return 0.0
        gather, reduce = self._collectives
        asked = gather if action.kind == "forward" else gather + reduce
        return self.layers[action.stage] * max(0.0, asked - self._layer[action.kind].total)

    def earliest(self, action: Action) -> float:
        """When an action's parameters are there, were they asked for at the beginning of the step, in order."""
        if action.microbatch or action.kind == "backward" or self.way.plan.shard == "none":
            return 0.0
        gather, busy, layers = self._collectives[0], self._layer["forward"].total, self.layers[action.stage]
        if self.way.plan.shard == "reshard":
            return gather if layers else 0.0
        before = sum(
            self.layers[stage] for stage in range(action.stage % self.schedule.pp, action.stage, self.schedule.pp)
        )
        return before * gather + max(gather, layers * gather - (layers - 1) * busy) if layers else 0.0

    def tail(self, timeline: list[Played]) -> float:
        """Seconds from the last action to the last reduced gradient: each rank reduces a layer at a time, in order."""
        reduce = self._collectives[1]
        last, latest = self.schedule.microbatches - 1, 0.0
        if self.way.plan.shard == "reshard":
            return reduce  # the others of the last backward are in `waits`
        free = [0.0] * self.schedule.pp
        for one in timeline:
            layers = self.layers[one.action.stage]
            if one.action.kind == "forward" or one.action.microbatch != last or not layers:
                continue
            for layer in range(1, layers + 1):
                ready = one.start + (one.end - one.start) * layer / layers
                free[one.rank] = max(free[one.rank], ready) + reduce
            latest = max(latest, free[one.rank])
        return max(0.0, latest - max(one.end for one in timeline))

    @cached_property
    def lost(self) -> float:
        """Seconds that the mean rank's computation loses to gathers and reductions that run beside it."""
        gpu, plan = self.job.gpu, self.way.plan
        taken = CHANNELS / gpu.sms if gpu.sms else 1.0  # a processor's cores compute while they do not speak
        gather, reduce = self._collectives
        forward, backward = self._layer["forward"].total, self._layer["backward"].total
        hidden = min(gather, forward) * (plan.shard != "none") + min(reduce, backward)
        if plan.shard == "reshard":
            hidden = self.microbatches * (min(gather, forward) + min(gather + reduce, backward))
        return taken * self.job.config.n_layers / plan.pp * hidden

    def transfer(self, action: Action) -> float:
        """Seconds that hidden states, cut by tensor ranks, are on their way to the next stage."""
        size = self.costs.n * self.job.config.dim / self.way.plan.tp * self.costs.wide
        return self.job.fabric.send(size, self.way.pipeline_stride)

    @cached_property
    def ends(self) -> float:
        """Seconds to gather the embedding (or reduce its gradients): it stands on one rank of a pipeline."""
        gather, reduce = self._collectives
        share = self.job.config.embedding_parameters() / self.job.config.layer_parameters()
        return (gather + reduce) * share

    @cached_property
    def optimiser(self) -> float:
        plan, config, gpu = self.way.plan, self.job.config, self.job.gpu
        held = config.parameters() / (plan.tp * plan.pp * plan.shards)
        world = Group(plan.world_size, 1, 1)
        agreeing = 2 * self.job.fabric.ring(8, world) if plan.world_size > 1 else 0.0
        if gpu.measured:
            return held / gpu.measured.update_rate + 2 * agreeing + self.costs.overhead.step
        return held * _OPTIMISER_BYTES / gpu.memory_rate + min(agreeing, 1e-3)

    # --- the step ---

    @cached_property
    def _alone(self) -> Mapping[tuple[Direction, int], float]:
        """What `compute` says in all, by direction and stage: micro-batches are alike."""
        stages = range(self.schedule.stages)
        return {(way, s): self.compute(Action(way, s, 0)).total for way in DIRECTIONS for s in stages}

    def seconds(self, action: Action) -> float:
        return self._alone[action.kind, action.stage] + self.waits(action)

    @cached_property
    def rough(self) -> float:
        """Seconds of a step, were all stages alike and nothing late: what a search can look at by the thousand."""
        pp, m = self.way.plan.pp, self.microbatches
        bubble = (pp - 1) / (self.way.plan.virtual * m)
        layers = self.job.config.n_layers / pp
        ends = sum((part.total for part in self._ends.values()), 0.0) / pp
        each = layers * (self._layer["forward"].total + self._layer["backward"].total) + ends
        waits = layers * sum(max(0.0, self.waits(Action(way, -1, 0))) for way in DIRECTIONS)
        waits /= max(1, self.layers[-1])
        return m * (each + waits) * (1 + bubble) + self.lost + self.ends + self.optimiser

    @cached_property
    def timeline(self) -> list[Played]:
        return played(self.schedule, self.seconds, self.transfer, self.earliest)

    @cached_property
    def step_seconds(self) -> float:
        more = (self.microbatches - self.schedule.microbatches) * self.busiest
        ended = max(one.end for one in self.timeline) + more
        return ended + self.tail(self.timeline) + self.lost + self.ends + self.optimiser

    @cached_property
    def work(self) -> Parts:
        """Seconds that the mean rank computes and speaks to its tensor and context ranks."""
        found = Parts()
        for stage in range(self.schedule.stages):
            found += self.compute(Action("forward", stage, 0)) + self.compute(Action("backward", stage, 0))
        return found * (self.microbatches / self.way.plan.pp)

    @cached_property
    def late(self) -> float:
        """How much sooner the pipeline would end if hidden states travelled in no time."""
        if self.way.plan.pp == 1:
            return 0.0
        at_once = played(self.schedule, self.seconds, None, self.earliest)
        return max(one.end for one in self.timeline) - max(one.end for one in at_once)

    def simulate(self) -> Step:
        job, seconds, work = self.job, self.step_seconds, self.work
        waits = sum(self.waits(one.action) for one in self.timeline) / self.way.plan.pp
        waits *= self.microbatches / self.schedule.microbatches
        sharing = waits + self.earliest(Action("forward", 0, 0)) + self.tail(self.timeline) + self.lost + self.ends
        parts = {
            "matmul": work.matmul,
            "attention": work.attention,
            "elementwise": work.elementwise,
            "tp": work.tp,
            "cp": work.cp,
            "dp": sharing,
            "pp": self.late,
            "optimiser": self.optimiser,
        }
        parts["bubble"] = max(0.0, seconds - sum(parts.values()))  # below zero by rounding only
        return Step(
            seconds=seconds,
            parts=parts,
            timeline=tuple(self.timeline),
            microbatches=self.microbatches,
            mfu=job.flops_per_step / (seconds * job.gpus * job.gpu.bf16_flops),
            tokens_per_second=job.batch_tokens / seconds / job.gpus,
            bubble=parts["bubble"] / (seconds - parts["bubble"]),
        )


def simulate(job: Job, way: Way) -> Step:
    return Stepping(job, way).simulate()
