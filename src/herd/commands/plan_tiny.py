"""What the trainer costs where there is next to nothing to compute: seconds of a step on a model of no width.

Three runs of each kind of plan, with more micro-batches and more layers from one to the next, tell what a step, a
micro-batch and a layer cost beside what the simulation counts (`overhead`): Python, autograd, FSDP's and DTensor's
hooks, waking up for collectives. The same holds for any width, so it is measured once.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import distributed as dist

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.progress import Fact
from herd.scaling.plan.measured import Overhead
from herd.train.batch import Batch
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import ParallelPlan, parse_plan
from herd.train.settings import TrainSettings
from herd.train.sources import FixedBatches

LENGTH, ROWS = 16, 2  # tokens of a row, rows of a micro-batch
RUNS = ((2, 2), (2, 4), (4, 4))  # layers, micro-batches of a process
WARM_UP, STEPS = 2, 8
PLANS = {
    "plain": "dp={n},shard=none",
    "keep": "dp={n},shard=keep",
    "reshard": "dp={n},shard=reshard",
    "tp": "tp={n}",
    "cp": "cp={n},shard=none",
    "pp": "pp={n}",
}


def shape(layers: int) -> LlamaConfig:
    return LlamaConfig(64, 32, layers, 4, 4, 64, max_seq_len=64)


class Clock:
    """A Progress that takes the time of every step."""

    def __init__(self) -> None:
        self.marks = [time.perf_counter()]

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        self.marks.append(time.perf_counter())

    def note(self, text: str) -> None:
        pass

    def steps(self, warm_up: int) -> list[float]:
        """Seconds of each step, the first `warm_up` left out."""
        taken = [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]
        return taken[warm_up:]


def plans(world: int) -> dict[str, ParallelPlan]:
    if world == 1:
        return {"plain": ParallelPlan(shard="none")}
    return {name: parse_plan(text.format(n=world)) for name, text in PLANS.items()}


def seconds(world: int) -> dict[str, list[float]]:
    """Of a step for each kind of plan, one value for each of `RUNS`; all processes call it together."""
    return {
        name: [_median_step(plan, layers, batches) for layers, batches in RUNS] for name, plan in plans(world).items()
    }


def _median_step(plan: ParallelPlan, layers: int, batches: int) -> float:
    count = ROWS * plan.dp * batches
    return statistics.median(steps(shape(layers), plan, count, LENGTH, ROWS * plan.dp, WARM_UP, STEPS))


def steps(
    config: LlamaConfig, plan: ParallelPlan, rows: int, length: int, micro: int, warm_up: int, timed: int
) -> list[float]:
    """Seconds of the trainer's steps of `rows` rows, `micro` at a time on all data ranks together; of the first process
    of the default group (on the others the list is empty)."""
    model = Llama(config)
    init_weights(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (rows, length + 1), generator=generator)
    places = torch.arange(length).expand(micro, length)
    each = [
        Batch(part[:, :-1], part[:, 1:], torch.ones(micro, length), None, places) for part in torch.split(tokens, micro)
    ]
    settings = TrainSettings(
        steps=warm_up + timed,
        batch_tokens=rows * length,
        seq_len=length,
        microbatch_tokens=micro * length,
        warmup_steps=0,
        checkpoint_every_seconds=0,
    )
    clock, mesh = Clock(), Mesh.of(plan, torch.device("cpu")) if plan.world_size > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        train(model, LanguageModelling(), FixedBatches([each]), settings, Path(folder), clock, mesh=mesh)
    if plan.world_size > 1:
        dist.barrier()
    return clock.steps(warm_up) or [0.0]


def overhead(left: list[float], pp: int) -> Overhead:
    """From what is left of the seconds of `RUNS` when all that is counted is taken off.

    A pipeline works through pp - 1 micro-batches more than there are, and a rank of it has 1/pp of the layers.
    """
    passes = [batches + pp - 1 for _, batches in RUNS]
    small, many, deep = left
    layer = max(0.0, (deep - many) * pp / (passes[2] * (RUNS[2][0] - RUNS[1][0])))
    each = (many - small) / (passes[1] - passes[0])
    microbatch = max(0.0, each - layer * RUNS[0][0] / pp)
    return Overhead(max(0.0, small - passes[0] * each), microbatch, layer)
