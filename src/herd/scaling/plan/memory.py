"""Bytes on one GPU by what they hold, of the rank that holds most: `memory(job, way)` -> Memory.

Counted by formulas, from the shapes; a test compares them with the network built on meta devices and with what
autograd keeps. Numbers a token and layer that backward needs (D, F, K as in layer.py), cut by tensor ranks:

    x, q, keys and values, what attention found, x after it, gate, up           4 D + 2 K + 2 F
    and where the layer is not compiled, both norms' results and SwiGLU's       2 D + F

The norms' results are gathered again in backward where tensor ranks cut tokens, so that none keeps them whole. Context
ranks keep the keys and values of whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from herd.devices import GIB
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import Costs
from herd.train.parallel.schedule import Schedule

# CUDA's context, cuBLAS's workspaces, NCCL's channels for four axes, and what the allocator cannot use: herd's choice.
RESERVE = 4 * GIB
_CHUNK = 1024  # rows of logits that are alive at one time (llama/loss.py, GPU_CHUNK)


@dataclass(frozen=True)
class Memory:
    parameters: float  # fp32 masters, and what is computed with
    gradients: float
    optimiser: float
    activations: float
    workspace: float  # a layer in backward, logits, parameters on their way
    reserve: float

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))


def memory(job: Job, way: Way) -> Memory:
    """Of the rank that holds most: of balanced stages the first or the last, which have an end of the model but a layer
    less, or the second, which has nearly as many micro-batches in flight as the first and no such stage."""
    plan = way.plan
    ranks = range(plan.pp) if plan.layers else {0, min(1, plan.pp - 1), plan.pp - 1}
    return max((of_rank(job, way, rank) for rank in ranks), key=lambda found: found.total)


def of_rank(job: Job, way: Way, rank: int) -> Memory:
    plan, config, costs = way.plan, job.config, Costs(job, way)
    wide = costs.wide
    matrices = (config.layer_parameters() - 2 * config.dim) / plan.tp + 2 * config.dim
    layers = plan.stage_layers(config.n_layers)
    schedule = way.schedule(job)
    held = sum(layers[stage] for stage in schedule.stages_of(rank))
    ends = config.embedding_parameters() / plan.tp
    first, last = rank == 0, rank == plan.pp - 1
    tied = config.tie_embeddings and plan.pp == 1
    numbers = held * matrices + ends * (first + last - tied) + config.dim * last
    whole = 0.0 if plan.shard == "reshard" else numbers
    copies = 0.0 if wide == 4 else wide * whole
    shard = numbers / plan.shards
    passing = 0.0 if plan.shards == 1 else 2 * matrices * (wide + 4)  # two layers gathered, two reduced
    alive = peak_layers(schedule, layers, rank) * kept_numbers(costs) * costs.n * wide
    logits = 3 * 4 * min(_CHUNK, costs.n) * config.vocab_size / plan.tp if last else 0.0
    return Memory(
        parameters=4 * shard + copies,
        gradients=4 * (shard if plan.shards > 1 else 0.0) + 4 * whole,
        optimiser=8 * shard,
        activations=alive,
        workspace=_all_numbers(costs) * costs.n * wide + logits + passing,
        reserve=0.0 if job.gpu.measured else RESERVE,
    )


def kept_numbers(costs: Costs) -> float:
    """Numbers a token that a layer keeps for its backward, on the mean over layers."""
    plan, config = costs.way.plan, costs.job.config
    d, f, k = config.dim / plan.tp, config.ffn_dim / plan.tp, costs.kv * plan.cp
    attention, feed_forward = 3 * d + 2 * k, d + 2 * f
    if not plan.compile:
        attention, feed_forward = attention + d, feed_forward + d + f
    everything = attention + feed_forward
    if costs.job.software.selective:
        return (everything + d) / 2
    less = {"nothing": everything, "mlp": attention + 2 * d, "layer": d}[plan.recompute]
    return everything + (less - everything) / plan.recompute_every


def _all_numbers(costs: Costs) -> float:
    """Of one layer while it is in backward: all that it keeps or makes again, the gradients, the input gathered."""
    plan, config = costs.way.plan, costs.job.config
    cut = 6 * config.dim + 3 * config.ffn_dim
    return 2 * cut / plan.tp + 2 * costs.kv * plan.cp + (config.dim if plan.tp > 1 else 0)


@lru_cache(maxsize=4096)
def peak_layers(schedule: Schedule, layers: tuple[int, ...], rank: int) -> int:
    """The most layers, counted once for each micro-batch, whose activations a rank holds at one time."""
    alive = most = 0
    for action in schedule.actions(rank):
        alive += layers[action.stage] if action.kind == "forward" else -layers[action.stage]
        most = max(most, alive)
    return most
