"""Products with weights of one format: GB/s of weights at 1, 8 and 32 rows, GFLOP/s at 512, on the 1B shape's matrices.

Random weights, more of them than caches hold, are multiplied in turn. The peer is torch's own path for the same
weights: `F.linear` in float32 and bfloat16; for FP8 and Q8_0 the matrix widened by torch's casts and multiplied, as
Fp8Linear did. The limit is plain reading (a sum of int64), for 512 rows torch's own product of the same shape in
bfloat16 (float32 for float32), measured in alternation; vs_limit is the median of the paired ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.harness import Row, make_row, seconds
from herd.kernels import linear_bf16, linear_f32, linear_fp8, linear_q8_0, reference
from herd.kernels.e4m3 import quantize_rows

SHAPES = ((8192, 2048), (2048, 8192))
HEAD = (128256, 2048)  # the output matrix, for one and eight rows
BYTES = 2**29  # of the weights that are rotated over
PAIRS = 5
BOUND = 1200.0
ROWS_OF_X = (1, 8, 32)
MANY = 512


@dataclass(frozen=True)
class Weights:
    """A matrix in one format, and the two ways to multiply by it."""

    bytes: int
    count: int
    ours: Callable[[Tensor], object]
    torchs: Callable[[Tensor], object]


def fp8(weight: Tensor) -> Weights:
    values, scale = quantize_rows(weight)
    return Weights(
        values.nbytes,
        weight.numel(),
        lambda x: linear_fp8(x, values, scale, bound=BOUND),
        lambda x: reference.linear_fp8(x, values, scale, bound=BOUND),
    )


def bf16(weight: Tensor) -> Weights:
    values = weight.bfloat16()
    return Weights(values.nbytes, weight.numel(), lambda x: linear_bf16(x, values), lambda x: F.linear(x, values))


def f32(weight: Tensor) -> Weights:
    return Weights(weight.nbytes, weight.numel(), lambda x: linear_f32(x, weight), lambda x: F.linear(x, weight))


def q8_0(weight: Tensor) -> Weights:
    parts = weight.view(weight.shape[0], -1, reference.Q8_0_VALUES)
    scale = (parts.abs().amax(-1, keepdim=True) / 127).half()
    int8 = (parts / scale.float()).round().clamp(-127, 127).to(torch.int8)
    blocks = torch.cat((scale.view(torch.uint8), int8.view(torch.uint8)), -1).flatten(1)
    ours, torchs = linear_q8_0, reference.linear_q8_0
    return Weights(blocks.nbytes, weight.numel(), lambda x: ours(x, blocks), lambda x: torchs(x, blocks))


def bench_format(name: str, peer: str, make: Callable[[Tensor], Weights]) -> list[Row]:
    found = []
    for shape in (*SHAPES, HEAD):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        one = make(weight)
        bank = [one, *(make(weight.clone()) for _ in range(BYTES // one.bytes - 1))]
        named = f"kernel-{name}-{shape[0]}x{shape[1]}"
        with torch.inference_mode():
            for m in ROWS_OF_X[:2] if shape == HEAD else ROWS_OF_X:
                found.append(_reading_row(f"{named}-m{m}", peer, bank, _activations(name, m, shape[1])))
            if shape != HEAD and name != "q8_0":  # Q8_0 is bound by float32 products from eight rows on
                found.append(
                    _matrix_row(f"{named}-m{MANY}", peer, bank[:2], _activations(name, MANY, shape[1]), weight)
                )
    return found


def _activations(name: str, m: int, k: int) -> Tensor:
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(1))
    return x if name == "f32" else x.bfloat16()


def _reading_row(name: str, peer: str, bank: list[Weights], x: Tensor) -> Row:
    block = torch.ones(BYTES // 8, dtype=torch.int64)
    slow = bank[:2] if "cast" in peer or "dequantised" in peer else bank  # what ours reads in ms takes a cast a second
    return _alternate(name, "GB/s", peer, x, bank, slow, lambda: block.nbytes / seconds(block.sum) / 1e9)


def _matrix_row(name: str, peer: str, bank: list[Weights], x: Tensor, weight: Tensor) -> Row:
    plain = [weight.to(x.dtype)] * 2
    work = 2 * x.shape[0] * weight.numel() * len(plain) / 1e9
    return _alternate(
        name, "GFLOP/s", peer, x, bank, bank, lambda: work / seconds(lambda: [F.linear(x, w) for w in plain])
    )


def _alternate(
    name: str,
    unit: str,
    peer: str,
    x: Tensor,
    ours_over: list[Weights],
    theirs_over: list[Weights],
    limit: Callable[[], float],
) -> Row:
    """Rates of ours, of the limit and of the peer, one after the other, several times."""
    first = ours_over[0]
    first.ours(x), first.torchs(x), limit()
    ours: list[float] = []
    theirs: list[float] = []
    limits: list[float] = []
    for _ in range(PAIRS):
        ours.append(_rate(unit, x, ours_over, lambda: [weights.ours(x) for weights in ours_over]))
        limits.append(limit())
        theirs.append(_rate(unit, x, theirs_over, lambda: [weights.torchs(x) for weights in theirs_over]))
    row = make_row(name, unit, ours, theirs, peer, statistics.median(limits))
    return replace(row, vs_limit=round(statistics.median(a / b for a, b in zip(ours, limits, strict=True)), 4))


def _rate(unit: str, x: Tensor, bank: list[Weights], work: Callable[[], object]) -> float:
    size = sum(weights.bytes if unit == "GB/s" else 2 * x.shape[0] * weights.count for weights in bank)
    return size / seconds(work) / 1e9


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "kernel-fp8": (
        "FP8 weights: GB/s at few rows, GFLOP/s at 512",
        lambda: bench_format("fp8", "torch float8 cast", fp8),
    ),
    "kernel-bf16": ("the same of BF16", lambda: bench_format("bf16", "torch F.linear", bf16)),
    "kernel-f32": ("the same of float32", lambda: bench_format("f32", "torch F.linear", f32)),
    "kernel-q8": ("GB/s of Q8_0 weights", lambda: bench_format("q8_0", "torch, dequantised", q8_0)),
}
