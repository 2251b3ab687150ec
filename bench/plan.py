"""herd's trainer on this machine's processes beside the planner's forecast: `plan-cpu`, `train-scaling`.

The machine is measured first, as `herd plan --measure` does; then each layout or shape is simulated with what was
measured, and trained, one thread a process. A row's herd is the trainer's tokens/s (of the median step), its peer the
forecast; vs_peer is how far they are apart. In the same minutes, because what else the machine does changes both.

`plan-cpu-*`        two processes as data, tensor, context and pipeline ranks; the limit is twice one process's rate in
                    the same run, so vs_limit is what an axis leaves of two processors
`train-scaling-*`   one process over widths, lengths of rows and sequences of a step; the limit is the matrix rate

HERD_BENCH_MACHINE=FOLDER keeps the machine's description there, as a file for `herd plan --gpu`, and takes one that is
there: measuring and training are then a run each. HERD_BENCH_ROUNDS: how often all cases are done.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.harness import Row, make_row
from herd.commands.plan_measure import measured
from herd.config import save
from herd.llama.config import LlamaConfig
from herd.scaling.plan.hardware import Gpu, find_gpu
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.network import Network, find_network
from herd.scaling.plan.step import Step, simulate
from herd.train.parallel.plan import ParallelPlan, parse_plan

SHAPE = LlamaConfig(vocab_size=4096, dim=256, n_layers=6, n_heads=8, n_kv_heads=4, ffn_dim=768)
SEQUENCES, LENGTH, MICRO = 8, 512, 2  # sequences of a step, tokens of one, sequences of a micro-batch
WARM_UP, STEPS, ROUNDS = 1, 3, 2
LAYOUTS = {
    "dp2-none": "dp=2,shard=none",
    "dp2-keep": "dp=2,shard=keep",
    "dp2-reshard": "dp=2,shard=reshard",
    "tp2": "tp=2",
    "cp2": "cp=2",
    "pp2": "pp=2",
}
WIDTHS, LENGTHS, BATCHES = (64, 128, 256, 512), (64, 256, 512, 1024, 2048), (1, 2, 4, 8)
Case = tuple[LlamaConfig, ParallelPlan, int, int, int]  # model, plan, sequences of a step, tokens of one, micro-batch


def layouts() -> dict[str, Case]:
    return {f"plan-cpu-{name}": (SHAPE, parse_plan(text), SEQUENCES, LENGTH, MICRO) for name, text in LAYOUTS.items()}


def shapes() -> dict[str, Case]:
    """One process: what changes is in the name, the rest is as for the layouts, with half the sequences."""
    plan, found = ParallelPlan(), dict[str, Case]()
    for width in WIDTHS:
        config = replace(SHAPE, dim=width, ffn_dim=3 * width)
        found[f"train-scaling-width-{width}"] = (config, plan, SEQUENCES // 2, LENGTH, MICRO)
    for length in LENGTHS:
        found[f"train-scaling-length-{length}"] = (SHAPE, plan, 2048 // length, length, max(1, 1024 // length))
    for batch in BATCHES:
        found[f"train-scaling-batch-{batch}"] = (SHAPE, plan, batch, LENGTH, min(batch, MICRO))
    return found


def forecast(case: Case, gpu: Gpu, network: Network) -> Step:
    config, plan, sequences, length, micro = case
    job = Job(config, plan.world_size, gpu, network, length, sequences * length)
    return simulate(job, Way(plan, max(1, micro // plan.dp)))


def bench_machine() -> list[Row]:
    """No rows: for HERD_BENCH_MACHINE."""
    for world in (1, 2):
        _machine(world)
    return []


def bench_layouts() -> list[Row]:
    alone: Case = (SHAPE, ParallelPlan(), SEQUENCES, LENGTH, MICRO)
    gpu, network = _machine(2)
    rates = _train({"one": alone} | layouts(), 2)
    limit = 2 * rates.pop("one")
    return [
        _row(name, rates[name], forecast(case, gpu, network), case, [limit] * STEPS) for name, case in layouts().items()
    ]


def bench_shapes() -> list[Row]:
    gpu, network = _machine(1)
    rates = _train(shapes(), 1)
    return [
        _row(
            name,
            rates[name],
            forecast(case, gpu, network),
            case,
            [gpu.bf16_flops / case[0].flops_per_token(case[3])] * STEPS,
        )
        for name, case in shapes().items()
    ]


def _row(name: str, rate: float, step: Step, case: Case, limit: Sequence[float]) -> Row:
    expected = case[2] * case[3] / step.seconds
    said = ", ".join(f"{part} {seconds * 1e3:.0f} ms" for part, seconds in step.parts.items() if seconds > 1e-3)
    print(f"{name}: {rate / expected - 1:+.0%}; forecast: {said}", file=sys.stderr)
    return make_row(name, "tokens/s", [rate] * len(limit), [expected] * len(limit), "herd plan", limit)


def _machine(world: int) -> tuple[Gpu, Network]:
    folder = os.environ.get("HERD_BENCH_MACHINE")
    path = Path(folder or ".") / f"processes-{world}.json"
    if folder and path.exists():
        return find_gpu(str(path)), find_network(str(path.with_suffix(".network.json")))
    gpu, network = measured(world)
    if folder:
        save(path, gpu)
        save(path.with_suffix(".network.json"), network)
    return gpu, network


def _train(cases: Mapping[str, Case], world: int) -> dict[str, float]:
    """Tokens/s of each case's median step, by the same processes one case after the other. All are done twice, and the
    faster time counts: what else the machine does only slows."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        ranks = range(world)
        jobs = [context.Process(target=_of_rank, args=(dict(cases), rank, world, folder, answers)) for rank in ranks]
        for job in jobs:
            job.start()
        found: dict[str, float] = answers.get(timeout=600)
        for job in jobs:
            job.join()
    return found


def _of_rank(cases: dict[str, Case], rank: int, world: int, folder: str, answers: Any) -> None:
    import statistics

    import torch
    from torch import distributed as dist

    from herd.commands.plan_tiny import steps

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=600), world, rank)
    found = dict.fromkeys(cases, 0.0)
    rounds = int(os.environ.get("HERD_BENCH_ROUNDS", ROUNDS))
    for name, (config, plan, sequences, length, micro) in list(cases.items()) * rounds:
        if plan.world_size == world or rank == 0:
            taken = steps(config, plan, sequences, length, micro, WARM_UP, STEPS)
            found[name] = max(found[name], sequences * length / max(statistics.median(taken), 1e-9))
            if rank == 0:
                print(f"{name}: {found[name]:,.0f} tokens/s", file=sys.stderr, flush=True)
        dist.barrier()
    if rank == 0:
        answers.put(found)
    dist.destroy_process_group()


ROWS = {
    "plan-machine": ("this machine as hardware for herd plan, into HERD_BENCH_MACHINE", bench_machine),
    "plan-cpu": ("two processes of the trainer by layout, beside herd plan and twice one process", bench_layouts),
    "train-scaling": ("one process of the trainer by width, length and batch, beside herd plan", bench_shapes),
}
