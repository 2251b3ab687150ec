"""Bytes that a rank holds under a plan: one account, of the trainer's estimate and of the planner.

What it has of a model is counted by the network itself (estimate.py, on the meta device) or by formula
(scaling/plan/memory.py); how much of that is there at a time is counted here. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from herd.llama.config import LlamaConfig
from herd.train.parallel.plan import ParallelPlan
from herd.train.parallel.schedule import Schedule

_FLOAT32 = 4


@dataclass(frozen=True)
class Holding:
    """Parameters of a rank, in numbers: `whole` all of its layers and ends, `shard` what of them is its own, `gathered`
    the most of them that are whole at one time where layers are let go after use."""

    whole: float
    shard: float
    gathered: float


@dataclass(frozen=True)
class Held:
    """Bytes, each part at its most."""

    parameters: float  # float32 masters, a shard, and the layers gathered for computing
    gradients: float
    optimiser: float


def held(plan: ParallelPlan, holding: Holding, wide: int) -> Held:
    """`wide`: bytes of a number that is computed with.

    "keep" has all layers of a rank gathered and sums their gradients in float32 until the last micro-batch; then sums
    make place for shards as they are reduced. A rank that shards nothing has its copy for computing, if that is not the
    masters themselves.
    """
    if plan.shards > 1:
        computing = wide * (holding.whole if plan.shard == "keep" else holding.gathered)
    else:
        computing = wide * holding.whole if wide < _FLOAT32 else 0.0
    summed = holding.whole if plan.shards > 1 and plan.shard == "keep" else 0.0
    return Held(
        parameters=_FLOAT32 * holding.shard + computing,
        gradients=_FLOAT32 * max(holding.shard, summed),
        optimiser=2 * _FLOAT32 * holding.shard,
    )


def loss_bytes(config: LlamaConfig, tp: int, tokens: int, wide: int) -> float:
    """What the loss keeps until its backward: the gradients of hidden states and, in float32, of the output matrix."""
    return wide * tokens * config.dim + _FLOAT32 * config.dim * config.vocab_size / tp


@lru_cache(maxsize=4096)
def peak(schedule: Schedule, kept: tuple[float, ...], rank: int) -> float:
    """The most that a rank keeps at one time, of micro-batches that each keep `kept[stage]` in each stage."""
    alive = most = 0.0
    for action in schedule.actions(rank):
        alive += kept[action.stage] if action.kind == "forward" else -kept[action.stage]
        most = max(most, alive)
    return most


def by_stage(schedule: Schedule, rank: int, own: Sequence[float]) -> tuple[float, ...]:
    """`peak`'s `kept` of a rank's own stages, first to last."""
    kept = [0.0] * schedule.stages
    for stage, size in zip(schedule.stages_of(rank), own, strict=True):
        kept[stage] = size
    return tuple(kept)
