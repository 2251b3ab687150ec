"""`herd plan --measure FILE.json`: what this machine's processors reach, as hardware that the planner can plan for.

One process a core, one thread each, as a run on several CPU processes is; all measure at the same time
(`plan_probe.py`, `plan_tiny.py`). Beside FILE.json a FILE.network.json says what lies between machines, for whoever has
several: it repeats what was measured here. All rates are of float32. What others do on the machine meanwhile is in the
numbers.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import socket
import statistics
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from herd.config import save
from herd.errors import DeviceError
from herd.road.machine import cores
from herd.scaling.plan.hardware import Gpu
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import Costs
from herd.scaling.plan.measured import Attention, Measured, Overhead, Point
from herd.scaling.plan.network import Network
from herd.scaling.plan.step import simulate
from herd.train.parallel.plan import ParallelPlan

_SECONDS = 480.0  # until a process that does not answer is given up


def measure(path: Path, out: TextIO) -> int:
    gpu, network = measured()
    assert gpu.measured is not None
    save(path, gpu)
    save(path.with_suffix(".network.json"), network)
    plain = gpu.measured.overhead["plain"]
    out.write(f"{gpu.node} processes of one thread, each at most {gpu.bf16_flops / 1e9:,.1f} GFLOP/s in float32\n")
    out.write(f"between products {gpu.memory_rate / 1e9:,.1f} GB/s, as passes over memory are counted\n")
    out.write(f"between processes {gpu.link_rate / 1e9:,.2f} GB/s, {network.link_latency * 1e6:,.0f} us a step\n")
    out.write(f"a layer of no width {plain.layer * 1e3:,.2f} ms, a step {plain.step * 1e3:,.1f} ms\n")
    out.write(f"written to {path}; plan with: herd plan MODEL --gpu {path} --gpus {gpu.node}\n")
    return 0


def measured(processes: int = 0) -> tuple[Gpu, Network]:
    """By `processes` at once; 0: one a core that this process may use."""
    world = processes or cores() or 1
    found = _together(world)
    taken = {
        name: statistics.median(max(burst) for burst in zip(*(rates[name] for rates, _ in found), strict=True))
        for name in found[0][0]
    }
    tiny = next(seconds for _, seconds in found if seconds["plain"][0] > 0)
    gpu = _machine(world, taken)
    network, at_once = _network(world, taken, gpu)
    return _with_overhead(gpu, at_once, tiny, taken), network


def _machine(world: int, taken: dict[str, float]) -> Gpu:
    """The rates alone, as if software cost nothing."""
    from herd.commands import plan_probe as probe

    def attention(name: str) -> Attention:
        forward, backward = [], []
        for length in probe.LENGTHS:
            flops, ahead = 2.0 * probe.TOKENS * length * probe.LAYER.dim, taken[f"{name} forward {length}"]
            forward.append(Point(length, flops / ahead))
            backward.append(Point(length, 2.5 * flops / max(taken[f"{name} both {length}"] - ahead, 0.1 * ahead)))
        return Attention(tuple(forward), tuple(backward))

    def products(name: str, same: int) -> tuple[Point, ...]:
        sizes = {side: float(probe.ROWS * side * side) for side in probe.SIDES}
        return tuple(Point(size ** (1 / 3), 6 * same * size / taken[f"{name} {side}"]) for side, size in sizes.items())

    gather, reduce = _link_rates(world, taken)
    machine = Measured(
        products=products("products", probe.SAME),
        cut_products=products("cut products", 1),
        attention=attention("own"),
        gathered_attention=attention("gathered"),
        stream_rate=12 * probe.STREAM / taken["sum"],
        logits_rate=probe.ROWS * probe.VOCABULARY / taken["loss"],
        cut_logits_rate=probe.ROWS * probe.VOCABULARY / taken["cut loss"],
        update_rate=probe.UPDATED / taken["update"],
        reduce_rate=reduce,
        overhead={},
    )
    fastest = max(point.rate for point in machine.products)
    best = max(machine.attention.forward, key=lambda point: point.rate), machine.attention.backward[-1]
    return Gpu(
        name="cpu",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // world,
        bf16_flops=fastest,
        fp8_flops=0.0,
        memory_rate=_between_rate(taken, 0.0),
        link_rate=gather,
        node=world,
        sms=0,
        watts=1.0,
        tdp=1.0,
        node_watts=float(world),
        attention={"cpu": (best[0].rate, best[1].rate)},
        dollars=0.01,
        measured=machine,
        sources=f"measured on {socket.gethostname()}, {world} processes of one thread, float32; watts and price: none",
    )


def _between_rate(taken: dict[str, float], overhead: float) -> float:
    """Bytes/s of what a layer does beside products and attention, by the bytes that layer.py counts for it."""
    from herd.commands.plan_probe import LAYER, LAYER_ROWS, LAYER_SEQ

    whole, tokens = taken["layer"], LAYER_ROWS * LAYER_SEQ
    rest = whole - taken["layer's products"] - taken[f"own both {LAYER_SEQ}"] - overhead
    counter = Gpu("counter", 1, 1.0, 0.0, 1.0, 1.0, 1, 0, 1.0, 1.0, 1.0, {"any": (1.0, 1.0)}, 0.0)
    none = Network("none", 1.0, 0, 1.0, 0.0, 0.0, 0.0)
    costs = Costs(Job(LAYER, 1, counter, none, LAYER_SEQ, tokens), Way(ParallelPlan(), LAYER_ROWS))
    numbers = costs.between_bytes("forward") + costs.between_bytes("backward")
    return numbers * 4 / costs.wide / max(rest, 0.05 * whole)


def _link_rates(world: int, taken: dict[str, float]) -> tuple[float, float]:
    """Bytes/s past a process, of gathers and of reductions."""
    from herd.commands.plan_probe import MESSAGES

    if world == 1:
        return 1e12, 1e12
    (short, long), part = MESSAGES, (world - 1) / world
    gather, reduce = (
        4 * (long - short) * part / max(taken[f"{name} {long}"] - taken[f"{name} {short}"], 1e-6)
        for name in ("gather", "reduce")
    )
    return gather, reduce


def _network(world: int, taken: dict[str, float], gpu: Gpu) -> tuple[Network, Network]:
    """As it is between computations, and as it is for those who only talk."""
    from herd.commands.plan_probe import MESSAGES

    late = soon = 0.0
    if world > 1:
        short = [taken[f"{name} {MESSAGES[0]}"] - taken["work"] for name in ("gather", "reduce")]
        late, soon = max(1e-6, sum(short) / 2 / (world - 1)), taken["at once"] / (world - 1)
    found = Network("measured", gpu.link_rate, 0, 1.0, late, late, late, 1e9, measured=True)
    return found, replace(found, link_latency=soon, latency=soon, pod_latency=soon)


def _with_overhead(gpu: Gpu, at_once: Network, tiny: dict[str, list[float]], taken: dict[str, float]) -> Gpu:
    """What the trainer took on a model of no width, less what the simulation says of it."""
    from herd.commands.plan_tiny import LENGTH, ROWS, RUNS, overhead, plans, shape

    assert gpu.measured is not None
    found: dict[str, Overhead] = {}
    for name, plan in plans(gpu.node).items():
        left = []
        for seconds, (layers, batches) in zip(tiny[name], RUNS, strict=True):
            job = Job(shape(layers), gpu.node, gpu, at_once, LENGTH, ROWS * plan.dp * batches * LENGTH)
            left.append(seconds - simulate(job, Way(plan, ROWS)).seconds)
        found[name] = overhead(left, plan.pp)
    plain = found["plain"].layer
    return replace(gpu, memory_rate=_between_rate(taken, plain), measured=replace(gpu.measured, overhead=found))


def _together(world: int) -> list[tuple[dict[str, list[float]], dict[str, list[float]]]]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        ranks = range(world)
        jobs = [context.Process(target=_of_rank, args=(rank, world, folder, answers), daemon=True) for rank in ranks]
        for job in jobs:
            job.start()
        try:
            return [answers.get(timeout=_SECONDS) for _ in jobs]
        except queue.Empty as error:
            message = f"of {world} processes that measure this machine one did not answer"
            raise DeviceError(message, where="measure", mend="see above what ended it") from error
        finally:
            for job in jobs:
                job.join(timeout=10)
                job.kill()


def _of_rank(rank: int, world: int, folder: str, answers: Any) -> None:
    import torch
    from torch import distributed as dist

    from herd.commands.plan_probe import rates
    from herd.commands.plan_tiny import seconds
    from herd.train.kernels import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as the trainer does
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=_SECONDS), world, rank)
    answers.put((rates(world), seconds(world)))
    dist.barrier()
    dist.destroy_process_group()
