"""Products with quantised weights: GB/s of weights at 1, 8 and 32 rows, on the matrices of the 1B shape.

Random weights, more of them than caches hold, are multiplied in turn. The peer is torch's own path for the same
weights: `F.linear` in bfloat16; for FP8 and Q8_0 the matrix widened by torch's casts and multiplied, as Fp8Linear did.
The limit is plain reading (a sum of int64), measured in alternation; vs_limit is the median of the paired ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.harness import Row, make_row, seconds
from herd.kernels import linear_bf16, linear_fp8, linear_q8_0, reference
from herd.kernels.e4m3 import quantize_rows

SHAPES = ((8192, 2048), (2048, 8192))
BYTES = 2**29  # of the weights that are rotated over
PAIRS = 5
BOUND = 1200.0
ROWS_OF_X = (1, 8, 32)


@dataclass(frozen=True)
class Weights:
    """A matrix in one format, and the two ways to multiply by it."""

    bytes: int
    ours: Callable[[Tensor], object]
    torchs: Callable[[Tensor], object]


def fp8(weight: Tensor) -> Weights:
    values, scale = quantize_rows(weight)
    return Weights(
        values.nbytes,
        lambda x: linear_fp8(x, values, scale, bound=BOUND),
        lambda x: reference.linear_fp8(x, values, scale, bound=BOUND),
    )


def bf16(weight: Tensor) -> Weights:
    values = weight.bfloat16()
    return Weights(values.nbytes, lambda x: linear_bf16(x, values), lambda x: F.linear(x, values))


def q8_0(weight: Tensor) -> Weights:
    parts = weight.view(weight.shape[0], -1, reference.Q8_0_VALUES)
    scale = (parts.abs().amax(-1, keepdim=True) / 127).half()
    int8 = (parts / scale.float()).round().clamp(-127, 127).to(torch.int8)
    blocks = torch.cat((scale.view(torch.uint8), int8.view(torch.uint8)), -1).flatten(1)
    return Weights(blocks.nbytes, lambda x: linear_q8_0(x, blocks), lambda x: reference.linear_q8_0(x, blocks))


def bench_format(name: str, peer: str, make: Callable[[Tensor], Weights]) -> list[Row]:
    found = []
    for shape in SHAPES:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        one = make(weight)
        bank = [one, *(make(weight) for _ in range(BYTES // one.bytes - 1))]
        for m in ROWS_OF_X:
            with torch.inference_mode():
                found.append(_row(f"kernel-{name}-{shape[0]}x{shape[1]}-m{m}", peer, bank, m, shape[1]))
    return found


def _row(name: str, peer: str, bank: list[Weights], m: int, k: int) -> Row:
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(1)).bfloat16()
    block = torch.ones(BYTES // 8, dtype=torch.int64)
    few = bank[:2]  # torch's casts take a second for what ours reads in a few milliseconds
    bank[0].ours(x), bank[0].torchs(x), block.sum()
    ours: list[float] = []
    theirs: list[float] = []
    limits: list[float] = []
    for _ in range(PAIRS):
        ours.append(_rate(bank, lambda: [weights.ours(x) for weights in bank]))
        limits.append(block.nbytes / seconds(block.sum) / 1e9)
        slow = bank if name.startswith("kernel-bf16") else few
        theirs.append(_rate(slow, lambda slow=slow: [weights.torchs(x) for weights in slow]))
    row = make_row(name, "GB/s", ours, theirs, peer, statistics.median(limits))
    return replace(row, vs_limit=round(statistics.median(a / b for a, b in zip(ours, limits, strict=True)), 4))


def _rate(bank: list[Weights], work: Callable[[], object]) -> float:
    return sum(weights.bytes for weights in bank) / seconds(work) / 1e9


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "kernel-fp8": ("GB/s of FP8 weights, 1, 8 and 32 rows", lambda: bench_format("fp8", "torch float8 cast", fp8)),
    "kernel-bf16": ("the same of BF16", lambda: bench_format("bf16", "torch F.linear", bf16)),
    "kernel-q8": ("the same of Q8_0", lambda: bench_format("q8_0", "torch, dequantised", q8_0)),
}
