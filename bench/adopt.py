"""Fine-tuning: herd's loop against TRL (+ PEFT) on the same small model, data and batches.

Three ways: SFT through LoRA (rank 16 beside all seven matrices of every layer), SFT of every weight, and DPO through
LoRA; AdamW at one rate, clipping at 1, no recomputation. "even" data all have one length, so nobody packs and nobody
pads: the two sides begin with the same adapter, take the same batches in the same order, and their losses must agree at
every step, or the row is refused. "ragged" conversations of 40 to 512 tokens are packed by herd behind document masks
and padded by TRL in groups of like length (its packing needs a GPU kernel to keep conversations apart); there the loss
of one batch must agree before the first step. Eight conversations or pairs a step on both sides (of ragged
conversations up to 4,096 tokens here, about 2,200 there). Only real tokens count. DPO's reference is computed in
every step there and once here, and that time is counted here too. bfloat16 is what users of either write: a bfloat16
base under fp32 adapters, or fp32 masters, computing in bfloat16 (there by autocast). Each side is a process of its own,
so that its peak memory is its own; steps alternate: one side waits while the other works.

The memory rows are peaks of resident memory as 1/GiB, so that more is better, like every other row.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from bench.adopt_worker import ALPHA, RANK
from bench.harness import Row, make_row, matrix_rate
from bench.sides import PEERS, Worker, same
from bench.train import SHAPE
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.weights.hf import save_model
from herd.weights.lora import attach
from herd.weights.peft import save_adapter
from herd.weights.settings import LoraSettings

WARM_UP, STEPS = 2, 9
CASES = (
    ("lora", "even", "float32"),
    ("lora", "ragged", "float32"),
    ("lora", "even", "bfloat16"),
    ("lora", "ragged", "bfloat16"),
    ("weights", "even", "float32"),
    ("weights", "even", "bfloat16"),
    ("dpo", "even", "float32"),
    ("dpo", "even", "bfloat16"),
    ("dpo", "ragged", "float32"),
)


def _worker(python: str, side: str, folder: Path, way: str, data: str, dtype: str) -> Worker:
    steps = str(WARM_UP + STEPS)
    return Worker(side, [python, "-m", "bench.adopt_worker", side, str(folder), way, data, dtype, steps])


def bench_adopt(way: str, data: str, dtype: str) -> list[Row]:
    """Speed and memory of both sides in one way on one kind of data."""
    name, peer = f"adopt-{way}-{data}-{dtype}", "TRL" if way == "weights" else "TRL + PEFT"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _make(Path(folder), torch.float32 if way == "weights" else getattr(torch, dtype))
        ours = stack.enter_context(_worker(sys.executable, "herd", Path(folder), way, data, dtype))
        theirs = None
        if PEERS.exists():
            theirs = stack.enter_context(_worker(str(PEERS), "trl", Path(folder), way, data, dtype))
        checked = ours.check()
        if theirs is not None:
            same(f"{name} before the first step", checked, theirs.check(), dtype)
        for _ in range(WARM_UP + STEPS):
            ours.step()
            if theirs is not None:
                theirs.step()
        if theirs is not None and data == "even":
            same(f"{name} step by step", ours.losses, theirs.losses, dtype)
        peaks = ours.peak(), theirs.peak() if theirs is not None else None
    # Of full training an adapter leaves out the gradients of frozen weights: a third. DPO adds the reference's forward.
    share = {"weights": 1.0, "lora": 2 / 3, "dpo": 1.0}[way]
    limit = matrix_rate(getattr(torch, dtype)) / (SHAPE.flops_per_token(512) * share)
    rates = ours.rates[WARM_UP:], theirs.rates[WARM_UP:] if theirs is not None else []
    speed = make_row(name, "tokens/s", *rates, peer, limit)
    memory = make_row(f"{name}-memory", "1/GiB", [1024 / peaks[0]], [1024 / peaks[1]] if peaks[1] else [], peer, None)
    print(f"{name}: peak {peaks[0]:.0f} MiB here, {peaks[1] or 0.0:.0f} MiB there", file=sys.stderr)
    return [speed, memory]


def _make(folder: Path, dtype: torch.dtype) -> None:
    """The model, and the adapter that both sides begin with."""
    model = Llama(SHAPE)
    init_weights(model, seed=0)
    save_model(folder / "m", model, SHAPE, dtype=dtype, herd={})
    attach(model, LoraSettings(rank=RANK, alpha=ALPHA))
    save_adapter(folder / "a", model, base=str(folder / "m"), herd={})


def _all() -> list[Row]:
    return [row for case in CASES for row in bench_adopt(*case)]


_ABOUT = "fine-tuning, tokens/s and peak memory, beside TRL + PEFT"
ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "adopt": (f"{_ABOUT}: all ways", _all),
    **{
        f"adopt-{way}-{data}-{dtype}": (
            f"{_ABOUT}: {way}, {data} rows, {dtype}",
            partial(bench_adopt, way, data, dtype),
        )
        for way, data, dtype in CASES
    },
}
