"""What one process of `herd plan --measure` does: rates of products, attention, memory, loss, update and collectives.

Everything is timed in bursts that all processes begin together, because they share memory and caches; a burst takes as
long as its slowest process (`plan_measure.py`). Collectives are timed between products, as they stand in training: a
process that has computed for milliseconds is woken later than one that only talks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch import distributed as dist

from herd.kernels import training_attention
from herd.llama.attention import Linear, attend
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.loss import chunked_cross_entropy
from herd.llama.model import Llama
from herd.train.kernels import compiled, cross_entropy
from herd.train.optimiser import Optimiser
from herd.train.parallel.collectives import gather_into, scatter_into
from herd.train.settings import TrainSettings

SIDES = (64, 128, 256, 512, 1024)  # of weights
ROWS = 1024  # tokens that they are multiplied with
SAME = 4  # of such products behind each other, as layers are: autograd begins once for all
LENGTHS = (128, 512, 2048)  # of rows, in attention
TOKENS = 2048  # of a batch of such rows
# The layer that stands for others: what is not product or attention in it goes by the passes over memory of layer.py.
LAYER = LlamaConfig(1024, 320, 1, 10, 5, 896, max_seq_len=2048)
LAYER_ROWS, LAYER_SEQ = 4, 512
VOCABULARY, NARROW = 4096, 16  # of the loss, whose products are to be small
STREAM = 1 << 22  # numbers of a sum over memory
UPDATED = 1 << 20  # parameters of an update
MESSAGES = (1 << 10, 1 << 20)  # numbers: for the latency and for the rate
_WORK = 512  # side of the four products between collectives: some milliseconds
_BURSTS, _SECONDS = 5, 0.03

Timings = dict[str, list[float]]


class Probe:
    """Times calls by name: seconds of one call, in each of several bursts."""

    def __init__(self) -> None:
        self.found: Timings = {}

    def time(self, name: str, call: Callable[[], object]) -> None:
        call()
        begin = time.perf_counter()
        call()
        count = torch.tensor([max(1, int(_SECONDS / (time.perf_counter() - begin)))])
        dist.broadcast(count, 0)
        taken = []
        for _ in range(_BURSTS):
            dist.barrier()
            begin = time.perf_counter()
            for _ in range(int(count)):
                call()
            taken.append((time.perf_counter() - begin) / int(count))
        self.found[name] = taken


def rates(world: int) -> Timings:
    """Of this process; all call it together."""
    probe = Probe()
    for side in SIDES:
        layers, both = _modules(ROWS, *[(side, side)] * SAME)
        with compiled(layers):
            probe.time(f"products {side}", both)
        probe.time(f"cut products {side}", _cut(ROWS, side, side))
    for length in LENGTHS:
        _attention(probe, length)
    _layer(probe)
    hidden, weight = (torch.randn(n, NARROW, requires_grad=True) for n in (ROWS, VOCABULARY))
    targets, weights = torch.randint(0, VOCABULARY, (ROWS,)), torch.ones(ROWS)
    for name, loss in (("loss", cross_entropy), ("cut loss", chunked_cross_entropy)):
        call = partial(loss, hidden, weight, targets, weights)
        probe.time(name, lambda call=call: torch.autograd.grad(call(), (hidden, weight)))  # type: ignore[misc]
    _memory(probe)
    if world > 1:
        _talk(probe, world)
    return probe.found


def _modules(rows: int, *shapes: tuple[int, int]) -> tuple[nn.ModuleList, Callable[[], object]]:
    """The three products of matrices [n, k] in training, by the trainer's modules: with the input, with the gradient,
    and of both."""
    layers = [Linear(k, n) for k, n in shapes]
    given = [(torch.randn(rows, k, requires_grad=True), torch.randn(rows, n)) for k, n in shapes]

    def both() -> None:
        found = [layer(x) for layer, (x, _) in zip(layers, given, strict=True)]
        torch.autograd.grad(found, wanted, [grad for _, grad in given])

    wanted = [*(x for x, _ in given), *(layer.weight for layer in layers)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.02)
    return nn.ModuleList(layers), both


def _cut(rows: int, k: int, n: int) -> Callable[[], object]:
    """The same by torch, as tensor ranks do."""
    x, weight, grad = torch.randn(rows, k), torch.randn(n, k), torch.randn(rows, n)
    return lambda: (x @ weight.T, grad @ weight, grad.T @ x)


def _attention(probe: Probe, length: int) -> None:
    """Forward, and with its backward, of the trainer's kernel and of context ranks' (which gather keys first)."""
    rows, model = TOKENS // length, Llama(LAYER)
    shapes = (LAYER.n_heads, LAYER.n_kv_heads, LAYER.n_kv_heads)
    q, k, v = (torch.randn(rows, length, heads, LAYER.head_dim, requires_grad=True) for heads in shapes)
    layout = model._layout(torch.empty(rows, length, LAYER.dim), None, None, None)
    starts, grad = torch.zeros(rows, length, dtype=torch.int32), torch.randn(rows, length, *q.shape[2:])

    def plain() -> Tensor:
        return attend(q, k, v, layout)

    def own() -> Tensor:
        return training_attention.attention(q, k, v, starts)

    for name, call in (("own", own if training_attention.attends(q) else plain), ("gathered", plain)):
        probe.time(f"{name} forward {length}", call)
        probe.time(f"{name} both {length}", lambda call=call: torch.autograd.grad(call(), (q, k, v), grad))  # type: ignore[misc]


def _layer(probe: Probe) -> None:
    """A whole layer, both ways, and its products."""
    model = Llama(LAYER)
    init_weights(model, seed=0)
    block = model.model.layers[0]
    x_BTD = torch.randn(LAYER_ROWS, LAYER_SEQ, LAYER.dim, requires_grad=True)
    layout, grad_BTD = model._layout(x_BTD, None, None, None), torch.randn_like(x_BTD)
    wanted = (x_BTD, *block.parameters())
    with compiled(model):
        probe.time("layer", lambda: torch.autograd.grad(block(x_BTD, layout), wanted, grad_BTD))
    d, k, f = LAYER.dim, LAYER.kv_dim, LAYER.ffn_dim
    layers, both = _modules(LAYER_ROWS * LAYER_SEQ, (d, d), (d, k), (d, k), (d, d), (d, f), (d, f), (f, d))
    with compiled(layers):
        probe.time("layer's products", both)


def _memory(probe: Probe) -> None:
    total, part = torch.zeros(STREAM), torch.ones(STREAM)
    probe.time("sum", lambda: total.add_(part))
    model = nn.Linear(1024, UPDATED // 1024, bias=False)
    optimiser = Optimiser(model, TrainSettings(1, 1, 1))

    def update() -> None:
        model.weight.grad = part[:UPDATED].view_as(model.weight)
        optimiser.mean_and_clip(1.0)
        optimiser.step(1e-6)

    probe.time("update", update)


def _talk(probe: Probe, world: int) -> None:
    a, b = torch.randn(_WORK, _WORK), torch.randn(_WORK, _WORK)

    def work() -> None:
        for _ in range(4):
            _ = a @ b

    probe.time("work", work)
    for count in MESSAGES:
        own, whole = torch.ones(count // world), torch.ones(count)

        def gather(own: Tensor = own, whole: Tensor = whole) -> None:
            work()
            gather_into(whole, own)

        def reduce(own: Tensor = own, whole: Tensor = whole) -> None:
            work()
            scatter_into(own, whole)

        probe.time(f"gather {count}", gather)
        probe.time(f"reduce {count}", reduce)
    few, all_of_them = torch.ones(MESSAGES[0] // world), torch.ones(MESSAGES[0])
    probe.time("at once", lambda: gather_into(all_of_them, few))
