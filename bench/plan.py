"""The planner's forecast beside herd's own trainer, on processes of this machine: `plan-cpu`.

The machine is measured first, as `herd plan --measure` does; then each layout is simulated with what was measured, and
trained: one process, and two as data ranks (whole and sharded), tensor ranks and pipeline ranks, one thread each. A
row's herd is the measured rate, its peer the planner's forecast; vs_peer is how far they are apart. Both are the best
of a few, so that a neighbour on the machine does not decide.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.harness import Row, make_row
from herd.commands.plan_measure import measured
from herd.llama.config import LlamaConfig
from herd.progress import Fact
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.step import simulate
from herd.train.parallel.plan import ParallelPlan, parse_plan

SHAPE = LlamaConfig(vocab_size=4096, dim=256, n_layers=6, n_heads=8, n_kv_heads=4, ffn_dim=768)
SEQUENCES, LENGTH, MICRO = 8, 512, 2  # sequences of a step, tokens of one, sequences of a micro-batch
WARM_UP, STEPS = 2, 5
LAYOUTS = ("dp=1", "dp=2,shard=none", "dp=2,shard=keep", "dp=2,shard=reshard", "tp=2", "pp=2")


class _Times:
    """A Progress that takes the time of every step."""

    def __init__(self) -> None:
        self.marks = [time.perf_counter()]

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        self.marks.append(time.perf_counter())

    def note(self, text: str) -> None:
        pass

    @property
    def steps(self) -> list[float]:
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)][WARM_UP:]


def bench_plan() -> list[Row]:
    machines = {processes: measured(processes) for processes in (1, 2)}
    found = []
    for text in LAYOUTS:
        plan = parse_plan(text)
        gpu, network = machines[plan.world_size]
        job = Job(SHAPE, plan.world_size, gpu, network, LENGTH, SEQUENCES * LENGTH)
        step = simulate(job, Way(plan, max(1, MICRO // plan.dp)))
        rates = [SEQUENCES * LENGTH / min(_train(text, plan.world_size))]
        forecast = SEQUENCES * LENGTH / step.seconds
        said = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in step.parts.items() if seconds > 1e-3)
        print(f"plan-cpu {text}, forecast: {said}", file=sys.stderr)
        found.append(make_row(f"plan-cpu {text}", "tokens/s", rates, [forecast] * len(rates), "herd plan", None))
    return found


def _train(plan: str, world: int) -> list[float]:
    """Seconds of the first rank's steps."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        jobs = [
            context.Process(target=_of_rank, args=(plan, rank, world, port, folder, answers)) for rank in range(world)
        ]
        for job in jobs:
            job.start()
        seconds: list[float] = answers.get(timeout=150)
        for job in jobs:
            job.join()
    return seconds


def _of_rank(text: str, rank: int, world: int, port: int, folder: str, answers: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from herd.llama.init import init_weights
    from herd.llama.model import Llama
    from herd.train.batch import Batch
    from herd.train.loop import train
    from herd.train.objectives.language_modelling import LanguageModelling
    from herd.train.parallel.mesh import processes
    from herd.train.settings import TrainSettings
    from herd.train.sources import FixedBatches

    torch.set_num_threads(1)
    plan: ParallelPlan = parse_plan(text)
    model = Llama(SHAPE)
    init_weights(model, seed=0)
    tokens = torch.randint(0, SHAPE.vocab_size, (SEQUENCES, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    places = torch.arange(LENGTH).expand(MICRO, LENGTH)
    each = [
        Batch(part[:, :-1], part[:, 1:], torch.ones(MICRO, LENGTH), None, places) for part in torch.split(tokens, MICRO)
    ]
    settings = TrainSettings(
        steps=WARM_UP + STEPS,
        batch_tokens=SEQUENCES * LENGTH,
        seq_len=LENGTH,
        microbatch_tokens=MICRO * LENGTH,
        warmup_steps=0,
        checkpoint_every_seconds=0,
    )
    times = _Times()
    with processes(plan, "cpu") as mesh:
        train(model, LanguageModelling(), FixedBatches([each]), settings, Path(folder), times, mesh=mesh)
    if rank == 0:
        answers.put(times.steps)


ROWS = {"plan-cpu": ("herd plan's forecast beside its own trainer on this machine's processes", bench_plan)}
