"""Training tokens per second on the CPU: herd's trainer beside five others on the same weights and batches.

`train-SHAPE-DTYPE`: herd and every peer (`train_peers.py`) in processes of their own, whose steps alternate in an order
that turns from round to round, so that each pair sees the same machine. All begin from one folder and take the same
batches; their losses must agree at every step, or the row is refused. The row of that name is herd beside the fastest
of the run; one more row a peer has its ratio. The limit is the measured rate of square products, in the same rounds,
over the FLOPs of a token. The first step (compilation, where there is any) is told on standard error.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from bench.harness import Row, make_row, matrix_rate
from bench.sides import PEERS, Worker, same
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights.hf import save_model

SHAPE = LlamaConfig(vocab_size=4096, dim=256, n_layers=6, n_heads=8, n_kv_heads=4, ffn_dim=768)
MEDIUM = LlamaConfig(vocab_size=32_000, dim=512, n_layers=8, n_heads=8, n_kv_heads=4, ffn_dim=1536)
SHAPES = {"small": SHAPE, "medium": MEDIUM}
BATCH, LENGTH, WARM_UP = 8, 512, 2
ROUNDS = 7
NAMES = {
    "transformers": "transformers + PyTorch loop",
    "transformers-compiled": "transformers compiled + PyTorch loop",
    "trainer": "transformers' Trainer",
    "litgpt": "litgpt + PyTorch loop",
    "litgpt-compiled": "litgpt compiled + PyTorch loop",
}


def prepare(folder: Path, shape: LlamaConfig, steps: int) -> None:
    """The model and the batches that every side begins with.

    Few ids are frequent, so that losses fall from the first step on: of ids drawn alike they stay at log V, whatever is
    learnt.
    """
    model = Llama(shape)
    init_weights(model, seed=0)
    save_model(folder / "m", model, shape, dtype=torch.float32, herd={})
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(steps, BATCH, LENGTH + 1, generator=generator)
    torch.save((shape.vocab_size * drawn**8).long(), folder / "tokens.pt")


def side(name: str, folder: Path, dtype: str, steps: int) -> Worker:
    python = sys.executable if name == "herd" else str(PEERS)
    return Worker(name, [python, "-m", "bench.train_worker", name, str(folder), dtype, str(steps)])


def bench_shape(shape_name: str, dtype: str) -> list[Row]:
    """The row beside the fastest peer, and a row for each peer. HERD_BENCH_SIDES=a,b takes some of the peers only."""
    shape, name = SHAPES[shape_name], f"train-{shape_name}-{dtype}"
    chosen = os.environ.get("HERD_BENCH_SIDES", ",".join(NAMES)).split(",") if PEERS.exists() else []
    rounds = int(os.environ.get("HERD_BENCH_ROUNDS", ROUNDS))
    limits: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        prepare(Path(folder), shape, WARM_UP + rounds)
        sides = {
            each: stack.enter_context(side(each, Path(folder), dtype, WARM_UP + rounds))
            for each in ("herd", *filter(None, chosen))
        }
        order = list(sides)
        for number in range(WARM_UP + rounds):
            turn = number % len(order)
            for each in order[turn:] + order[:turn]:
                sides[each].step()
            limits.append(matrix_rate(getattr(torch, dtype), repeats=3) / shape.flops_per_token(LENGTH))
    ours = sides.pop("herd")
    for each, worker in sides.items():
        same(f"{name}, {each}", ours.losses, worker.losses, dtype)
        first = BATCH * LENGTH / worker.rates[0]
        print(
            f"{name}: {each} {statistics.median(worker.rates[WARM_UP:]):,.0f}, first step {first:.1f} s",
            file=sys.stderr,
        )

    def row(called: str, peer: str | None) -> Row:
        theirs = sides[peer].rates[WARM_UP:] if peer else []
        return make_row(
            called, "tokens/s", ours.rates[WARM_UP:], theirs, NAMES[peer] if peer else "peers", limits[WARM_UP:]
        )

    fastest = max(sides, key=lambda each: statistics.median(sides[each].rates[WARM_UP:]), default=None)
    return [row(name, fastest), *(row(f"{name}-{each}", each) for each in sides)]


def _all() -> list[Row]:
    return [row for shape in SHAPES for dtype in ("float32", "bfloat16") for row in bench_shape(shape, dtype)]


_ABOUT = "training tokens/s beside transformers, its Trainer and litgpt"
ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "train": (f"{_ABOUT}: both shapes, float32 and bfloat16", _all),
    **{
        f"train-{shape}-{dtype}": (f"{_ABOUT}: {shape}, {dtype}", partial(bench_shape, shape, dtype))
        for shape in SHAPES
        for dtype in ("float32", "bfloat16")
    },
}
