"""`herd plan --measure FILE.json`: what this machine's processors reach, as hardware that the planner can plan for.

One process a core, one thread each, as a run on several CPU processes is; all measure at the same time, because they
share memory and caches. Beside FILE.json a FILE.network.json says what lies between machines, for whoever has several:
it repeats what was measured here. All rates are of float32.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from herd.config import save
from herd.errors import DeviceError
from herd.llama.config import LlamaConfig
from herd.road.machine import cores
from herd.scaling.plan.hardware import Gpu, Point
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.layer import Costs
from herd.scaling.plan.network import Network
from herd.train.parallel.plan import ParallelPlan

_SIDES = (64, 128, 256, 512, 1024)  # of weights
_ROWS = 2048  # tokens that they are multiplied with
# The layer that stands for others: what is not product or attention in it goes by the passes over memory of layer.py.
_LAYER = LlamaConfig(1024, 320, 1, 10, 5, 896, max_seq_len=2048)
_SEQ, _BATCH = 512, 4
_MESSAGES = (2**12, 2**22)  # numbers: for the latency and for the rate
_SECONDS = 240.0  # until a process that does not answer is given up


def measure(path: Path, out: TextIO) -> int:
    gpu, network = measured()
    save(path, gpu)
    save(path.with_suffix(".network.json"), network)
    fastest = max(point.flops for point in gpu.curve)
    out.write(f"{gpu.node} processes of one thread, each at most {fastest / 1e9:,.1f} GFLOP/s in float32\n")
    out.write(f"between products {gpu.memory_rate / 1e9:,.1f} GB/s, as passes over memory are counted\n")
    out.write(f"between processes {gpu.link_rate / 1e9:,.2f} GB/s, {network.link_latency * 1e6:,.0f} us a step\n")
    out.write(f"written to {path}; plan with: herd plan MODEL --gpu {path} --gpus {gpu.node}\n")
    return 0


def measured(processes: int = 0) -> tuple[Gpu, Network]:
    """By `processes` at once; 0: one a core that this process may use."""
    world = processes or cores() or 1
    found = _together(world)

    def middle(name: str) -> float:
        return float(statistics.median(one[name] for one in found))

    curve = tuple(
        Point((_ROWS * side * side) ** (1 / 3), statistics.median(one["products"][n] for one in found))
        for n, side in enumerate(_SIDES)
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // world
    gpu = Gpu(
        name="cpu",
        memory_bytes=memory,
        bf16_flops=max(point.flops for point in curve),
        fp8_flops=0.0,
        memory_rate=middle("memory_rate"),
        link_rate=middle("link_rate"),
        node=world,
        sms=0,
        watts=1.0,
        tdp=1.0,
        node_watts=float(world),
        attention={"cpu": (middle("attention_forward"), middle("attention_backward"))},
        dollars=0.01,
        measured=True,
        curve=curve,
        launch_seconds=middle("launch_seconds"),
        dispatch_seconds=middle("dispatch_seconds"),
        sources=f"measured on {socket.gethostname()}, {world} processes of one thread, float32; watts and price: none",
    )
    latency = middle("latency")
    network = Network("measured", gpu.link_rate, 0, 1.0, latency, latency, latency, 1e9, measured=True)
    return gpu, network


def _together(world: int) -> list[dict[str, Any]]:
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

    from herd.train.kernels import keep_freed_memory

    torch.set_num_threads(1)
    where = f"file://{folder}/store"
    dist.init_process_group("gloo", where, timedelta(seconds=_SECONDS), world, rank)
    if world == 1:
        keep_freed_memory()  # as the trainer does in one process
    answers.put({"products": [_products(side) for side in _SIDES], **_between(world), **_talk(world)})
    dist.barrier()
    dist.destroy_process_group()


def _products(side: int) -> float:
    """FLOP/s of the three products of a matrix in training: with its input, with the gradient, and of both."""
    import torch

    x, weight, grad = torch.randn(_ROWS, side), torch.randn(side, side), torch.randn(_ROWS, side)

    def three() -> None:
        _ = x @ weight.T, grad @ weight, grad.T @ x

    return 3 * 2 * _ROWS * side * side / _seconds(three)


def _between(world: int) -> dict[str, float]:
    """Attention, and what else a layer does beside its products, by the trainer's own modules: those of the compiled
    kernels in one process, the plain ones in several (train/parallel/worker.py)."""
    import torch

    from herd.llama.init import init_weights
    from herd.llama.model import Llama
    from herd.train.kernels import compiled

    model = Llama(_LAYER)
    init_weights(model, seed=0)
    block = model.model.layers[0]
    x_BTD = torch.randn(_BATCH, _SEQ, _LAYER.dim, requires_grad=True)
    layout = model._layout(x_BTD, None, None, None)
    q, k, v = (torch.randn(_BATCH, _SEQ, heads, _LAYER.head_dim, requires_grad=True) for heads in (10, 5, 5))
    with compiled(model) if world == 1 else nullcontext():
        whole = _both(lambda: block(x_BTD, layout))
        looking = _both(lambda: _attention(q, k, v, layout, world == 1))
    n, flops = _BATCH * _SEQ, 2.0 * _BATCH * _SEQ * _SEQ * _LAYER.dim
    products = [
        (2 * n * k_ * n_, _seconds(_product(n, k_, n_)))
        for k_, n_ in ((_LAYER.dim, 640), (_LAYER.dim, _LAYER.dim), (_LAYER.dim, 1792), (_LAYER.ffn_dim, _LAYER.dim))
    ]
    multiplying = 3 * sum(seconds for _, seconds in products)
    counted = Costs(Job(_LAYER, 1, _counter(), _none(), _SEQ, n), Way(ParallelPlan(), _BATCH))
    size = counted.between_bytes("forward") + counted.between_bytes("backward")
    rest = max(sum(whole) - sum(looking) - multiplying, 0.05 * sum(whole))
    one = torch.ones(1)
    return {
        "attention_forward": flops / looking[0],
        "attention_backward": 2.5 * flops / looking[1],
        "memory_rate": size / rest,
        "launch_seconds": _seconds(lambda: one + one),
    }


def _product(n: int, k: int, out: int) -> Callable[[], object]:
    import torch

    x, weight = torch.randn(n, k), torch.randn(out, k)
    return lambda: x @ weight.T


def _attention(q: Any, k: Any, v: Any, layout: Any, fast: bool) -> Any:
    import torch

    from herd.kernels import training_attention as own
    from herd.llama.attention import attend

    if fast and own.attends(q):
        return own.attention(q, k, v, torch.zeros(q.shape[:2], dtype=torch.int32))
    return attend(q, k, v, layout)


def _counter() -> Gpu:
    """Any measured device: only bytes are asked of it."""
    return Gpu("counter", 1, 1.0, 0.0, 1.0, 1.0, 1, 0, 1.0, 1.0, 1.0, {"cpu": (1.0, 1.0)}, 0.0, measured=True)


def _none() -> Network:
    return Network("none", 1.0, 0, 1.0, 0.0, 0.0, 0.0, measured=True)


def _talk(world: int) -> dict[str, float]:
    """Of gathers and reductions of float32 among all processes: bytes/s past each of them, and seconds a step."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    if world == 1:
        return {"link_rate": 1e12, "latency": 0.0, "dispatch_seconds": 0.0}
    short, long = (_ring(count, world) for count in _MESSAGES)
    latency = short / (world - 1)
    one = DTensor.from_local(torch.ones(1), init_device_mesh("cpu", (world,)))
    found = {"latency": latency, "dispatch_seconds": _seconds(lambda: one + one)}
    return found | {"link_rate": 4 * _MESSAGES[1] * (world - 1) / world / max(long - short, 1e-9)}


def _ring(count: int, world: int) -> float:
    """Seconds of a gather or reduction of `count` numbers: half of both together."""
    import torch

    from herd.train.parallel.collectives import gather_into, scatter_into

    own, whole = torch.ones(count // world), torch.ones(count)

    def both() -> None:
        gather_into(whole, own)
        scatter_into(own, whole)

    return _seconds(both, calls=20) / 2


def _both(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a forward and of its backward, the best of several."""
    forward, backward = [], []
    for _ in range(12):
        begin = time.perf_counter()
        out = call()
        between = time.perf_counter()
        out.sum().backward()
        forward.append(between - begin)
        backward.append(time.perf_counter() - between)
    return min(forward), min(backward)


def _seconds(call: Callable[[], object], calls: int = 0, least: float = 0.3) -> float:
    """The best of as many calls as fill `least` seconds; with `calls`, the middle of so many on every process."""
    taken: list[float] = []
    until = time.perf_counter() + least
    while len(taken) < (calls or 5) or (not calls and time.perf_counter() < until):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken) if calls else min(taken)
