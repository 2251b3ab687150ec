"""The best of all ways to do a job: every layout that the machine and the model allow, the ones that fit simulated.

    best(job)                         # Found: the way, its step, its memory, and the runners-up
    best(job, parse_plan("tp=8"))     # axes that are given stay as they are

A way is first judged without playing its pipeline (work, and the bubble that its schedule has when stages are alike);
the `_PLAYED` that look fastest are then played event by event.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from herd.devices import GIB
from herd.errors import SettingError
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.memory import Memory, memory
from herd.scaling.plan.step import Step, Stepping, simulate
from herd.train.parallel.plan import ParallelPlan
from herd.train.settings import Recompute

Shard = Literal["keep", "reshard", "none"]

_PLAYED = 12  # ways; the rough order is right to a few percent
_TOLD = 5  # ways that are told, the best among them
_ROWS = (1, 2, 4, 8, 16)  # sequences of a micro-batch
_STAGES = (1, 2, 3, 4, 6, 8, 10, 16)  # of a pipeline rank
_MANY = 64  # tensor or context ranks
_LEAST_TOKENS = 2048  # of a row on a context rank: with fewer, products are too small to be worth the gathers


@dataclass(frozen=True)
class Found:
    way: Way
    step: Step
    memory: Memory
    tried: int  # ways that the machine and the model allow
    fitting: int  # of these, how many fit into memory
    others: tuple[tuple[Way, Step, Memory], ...] = ()  # the next best layouts


def best(job: Job, given: ParallelPlan | None = None, fixed: frozenset[str] = frozenset(), rows: int = 0) -> Found:
    """`fixed` names the fields of `given` that are to stay; `rows`: sequences of a micro-batch, 0 for any."""
    tried, fitting, smallest = 0, list[tuple[float, Way, Memory]](), list[tuple[float, Way]]()
    for way in _ways(job, given or ParallelPlan(compile=True), fixed):
        if rows and way.rows != rows:
            continue
        tried += 1
        held = memory(job, way)
        if held.total <= job.gpu.memory_bytes:
            fitting.append((Stepping(job, way).rough, way, held))
        elif not smallest or held.total < smallest[0][0]:
            smallest = [(held.total, way)]
    if not fitting:
        raise _nothing_fits(job, tried, smallest, ", ".join(f"{n}={getattr(given, n)}" for n in sorted(fixed)))
    fitting.sort(key=lambda one: one[0])
    played = [(Stepping(job, way).step_seconds, way, held) for _, way, held in fitting[:_PLAYED]]
    played.sort(key=lambda one: one[0])
    (way, step, held), *others = [(way, simulate(job, way), held) for way, held in _distinct(played)]
    return Found(way, step, held, tried, len(fitting), tuple(others))


def check(job: Job, way: Way) -> None:
    """SettingError where a layout that the user gives cannot do the job."""
    plan = way.plan
    if plan.world_size != job.gpus:
        raise SettingError(
            f"the layout {plan} is for {plan.world_size:,} GPUs, and there are {job.gpus:,}",
            where="layout",
            mend=f"tp * cp * pp * dp must be {job.gpus:,}",
        )
    plan.check(job.config)
    if job.rows % (plan.dp * way.rows):
        raise SettingError(
            f"{job.rows:,} sequences of a step cannot be dealt to dp={plan.dp} ranks in micro-batches of {way.rows}",
            where="layout.dp",
            mend=f"give a dp that divides {job.rows:,}, or another --batch-tokens",
        )


def _ways(job: Job, base: ParallelPlan, fixed: frozenset[str]) -> Iterator[Way]:
    """Every way that the axes' divisors, the heads, the layers and the batch allow."""
    for axes in _axes_of(job):
        if any(name in fixed and axes[name] != getattr(base, name) for name in axes):
            continue
        tp, cp, pp, dp = axes["tp"], axes["cp"], axes["pp"], axes["dp"]
        plan = replace(base, tp=tp, cp=cp, pp=pp, dp=dp, virtual=1, layers=())
        yield from _runs(job, plan, fixed, base)


def _axes_of(job: Job) -> Iterator[dict[str, int]]:
    config, gpus = job.config, job.gpus
    for tp in _divisors(math.gcd(gpus, config.n_kv_heads)):
        if tp > _MANY or config.ffn_dim % tp:
            continue
        for cp in _divisors(gpus // tp):
            whole = cp == 1 or (job.seq_len % (2 * cp * tp) == 0 and job.seq_len // cp >= _LEAST_TOKENS)
            if cp > _MANY or not whole:
                continue
            for pp in _divisors(gpus // (tp * cp)):
                dp = gpus // (tp * cp * pp)
                if pp <= config.n_layers + 2 and job.rows % dp == 0:
                    yield {"tp": tp, "cp": cp, "pp": pp, "dp": dp}


def _runs(job: Job, plan: ParallelPlan, fixed: frozenset[str], base: ParallelPlan) -> Iterator[Way]:
    """The ways to run one layout: stages, sharding, recomputation, sequences of a micro-batch."""
    deep = [v for v in _STAGES if v == 1 or (plan.pp > 1 and plan.pp * v <= job.config.n_layers + 2)]
    if "virtual" in fixed:
        deep = [base.virtual] if plan.pp > 1 or base.virtual == 1 else []
    # Compiled layers make norms and SwiGLU again at no cost.
    choices: tuple[Recompute, ...] = ("elementwise", "mlp", "layer")
    again = (base.recompute,) if "recompute" in fixed else choices if base.compile else ("nothing", *choices)
    counts = [rows for rows in _ROWS if (job.rows // plan.dp) % rows == 0]
    for virtual in deep:
        for shard in (base.shard,) if "shard" in fixed else _shards(plan):
            for what in again:
                for number in counts:
                    yield Way(replace(plan, virtual=virtual, shard=shard, recompute=what), number)


def _shards(plan: ParallelPlan) -> tuple[Shard, ...]:
    """In a pipeline parameters are never gathered again: a rank would do so for every micro-batch of every stage."""
    if plan.dp * plan.cp == 1:
        return ("none",)
    return ("keep",) if plan.pp > 1 else ("keep", "reshard")


def _distinct(played: list[tuple[float, Way, Memory]]) -> list[tuple[Way, Memory]]:
    """The fastest way for each set of axes, the fastest of all first."""
    seen: dict[tuple[int, int, int, int], tuple[Way, Memory]] = {}
    for _, way, held in played:
        seen.setdefault(_axes(way), (way, held))
    return list(seen.values())[:_TOLD]


def _axes(way: Way) -> tuple[int, int, int, int]:
    return way.plan.tp, way.plan.cp, way.plan.pp, way.plan.dp


def _nothing_fits(job: Job, tried: int, smallest: list[tuple[float, Way]], given: str) -> SettingError:
    if not smallest:
        return SettingError(
            f"no layout of {job.gpus:,} GPUs{f' with {given}' if given else ''} divides this model and {job.rows:,} "
            "sequences of a step",
            where="layout" if given else "gpus",
            mend=f"axes must divide {job.gpus:,}, and the data ranks {job.rows:,} sequences: give other axes, "
            "a power of two of GPUs, or another --batch-tokens",
        )
    [(size, way)] = smallest
    state = 16 * job.config.parameters()
    enough = 2 ** math.ceil(math.log2(state / (0.7 * job.gpu.memory_bytes)))
    return SettingError(
        f"none of {tried:,} layouts fits into the {job.gpu.memory_bytes / GIB:.0f} GiB of {job.gpus:,} {job.gpu.name}: "
        f"the smallest takes {size / GIB:.0f} GiB ({way.plan})",
        where="gpus",
        mend=f"weights, gradients and moments alone are {state / GIB:,.0f} GiB: give {max(enough, 2 * job.gpus):,} "
        "GPUs, GPUs with more memory, or shorter sequences (--seq)",
    )


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
