"""Bytes on one GPU by what they hold, of the rank that holds most: `memory(job, way)` -> Memory.

What a rank has is counted by formulas, from the shapes; how much of it is there at a time by the account that the
trainer's own estimate goes by (train/parallel/account.py). Tests compare both for the published layouts, and the
formulas with what autograd keeps. Numbers a token and layer that backward needs (D, F, K as in layer.py), cut by tensor
ranks:

    x, q, keys and values, what attention found, x after it, gate, up           4 D + 2 K + 2 F
    and where nothing is made again, both norms' results, SwiGLU's, and of
    context ranks all keys and values: on GPUs for every query head             2 D + F + 2 CP D

Tensor ranks keep the norms' results as parts, and gather them again in backward.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from herd.devices import GIB
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import GPU_CHUNK, Costs
from herd.train.parallel.account import Holding, held, loss_bytes, peak

# CUDA's context, cuBLAS's workspaces, NCCL's channels for four axes, and what the allocator cannot use: herd's choice.
RESERVE = 4 * GIB


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
    own = sum(layers[stage] for stage in schedule.stages_of(rank))
    first, last = rank == 0, rank == plan.pp - 1
    tied = config.tie_embeddings and plan.pp == 1
    ends = config.embedding_parameters() / plan.tp * (first + last - tied) + config.dim * last
    numbers = own * matrices + ends
    found = held(plan, Holding(numbers, numbers / plan.shards, matrices + ends), wide)
    alive = peak(schedule, layers, rank) * kept_bytes(costs) + last * loss_bytes(config, plan.tp, costs.n, wide)
    passing = 0.0 if plan.shards == 1 else 2 * matrices * (wide + 4)  # two layers gathered, two reduced
    logits = 3 * 4 * min(GPU_CHUNK, costs.n) * config.vocab_size / plan.tp if last else 0.0
    return Memory(
        parameters=found.parameters,
        gradients=found.gradients,
        optimiser=found.optimiser,
        activations=alive,
        workspace=_all_numbers(costs) * costs.n * wide + logits + passing,
        reserve=0.0 if job.gpu.measured else RESERVE,
    )


def kept_bytes(costs: Costs) -> float:
    """What a layer keeps of a micro-batch for its backward, on the mean over layers."""
    config, plan = costs.job.config, costs.way.plan
    norms = 4 * 2 / plan.tp  # a float32 number of each
    attention = 4 * config.n_heads / plan.tp if not costs.job.gpu.measured else 0.0  # and of each query and head
    small = 0.0 if plan.recompute == "layer" else norms + attention
    return costs.n * (costs.wide * kept_numbers(costs) + small)


def kept_numbers(costs: Costs) -> float:
    """Numbers a token, of the width that is computed with, that a layer keeps, on the mean over layers."""
    plan, config = costs.way.plan, costs.job.config
    d, f, k = config.dim / plan.tp, config.ffn_dim / plan.tp, costs.kv
    everything = 6 * d + _keys(costs) + 3 * f + d * _repeats(costs)  # attention's results of both chunks, and joined
    sparing = 4 * d + 2 * k + 2 * f
    if costs.job.software.selective:
        return (everything + d) / 2
    less = {"nothing": everything, "elementwise": sparing, "mlp": sparing - 2 * f, "layer": d}[plan.recompute]
    return everything + (less - everything) / plan.recompute_every


def _repeats(costs: Costs) -> bool:
    """Whether keys are repeated for their query heads: of torch's GPU kernels none shares them where it has a mask."""
    return costs.way.plan.cp > 1 and not costs.job.gpu.measured


def _keys(costs: Costs) -> float:
    """Numbers a token of this rank of all keys and values that it attends to."""
    plan, config = costs.way.plan, costs.job.config
    return 2 * plan.cp * (config.dim / plan.tp if _repeats(costs) else costs.kv)


def _all_numbers(costs: Costs) -> float:
    """Of one layer while it is in backward: all that it keeps or makes again, the gradients, the input gathered."""
    plan, config = costs.way.plan, costs.job.config
    cut = 6 * config.dim + 3 * config.ffn_dim
    return 2 * cut / plan.tp + 2 * _keys(costs) + (config.dim if plan.tp > 1 else 0)
