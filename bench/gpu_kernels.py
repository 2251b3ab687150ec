"""FP8 products and attention over pages on a CUDA device, in calls a second; the limit is memory or matrices.

FP8 stands beside `F.linear` in bfloat16 on the same matrix, and few rows beside reading the codes at the rate at which
the device copies memory; many rows beside the measured rate of bfloat16 matrices, which FP8 units can pass. Attention
of one new token a sequence stands beside torch's `scaled_dot_product_attention` over dense keys and values. More
weights than caches hold are multiplied in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.harness import Row, make_row, matrix_rate, seconds
from herd.kernels import linear_fp8
from herd.kernels.attention import PageTensors
from herd.kernels.e4m3 import quantize_rows

SHAPES = ((14336, 4096), (4096, 14336))  # of the 8B model's feed-forward
BYTES, PAIRS, BOUND = 2**30, 7, 1200.0
HEADS, GROUPS, SIZE, PAGE = 32, 8, 128, 16


def kernel_rows(device: torch.device) -> list[Row]:
    """FP8 products with 1, 8, 32 and 1,024 rows, then attention of 1 and 32 sequences of 4,096 tokens."""
    with torch.inference_mode():
        read = _reading_rate(device)
        matrices = matrix_rate(torch.bfloat16, 8192, device=device)
        found = [_product(shape, m, device, read, matrices) for shape in SHAPES for m in (1, 8, 32, 1024)]
        found += [_attention(batch, 4096, device, read) for batch in (1, 32)]
    return [replace(row, machine=torch.cuda.get_device_name(device)) for row in found]


def _product(shape: tuple[int, int], m: int, device: torch.device, read: float, matrices: float) -> Row:
    n, k = shape
    wide = torch.randn(n, k, device=device)
    values, scale = quantize_rows(wide)
    narrow = [(values.clone(), scale) for _ in range(BYTES // values.nbytes)]
    plain = [wide.bfloat16() for _ in range(BYTES // (2 * values.nbytes))]
    x = torch.randn(m, k, device=device).bfloat16()
    ours, theirs = _pairs(
        [lambda one=one: linear_fp8(x, *one, bound=BOUND) for one in narrow],
        [lambda one=one: F.linear(x, one) for one in plain],
    )
    limit = min(read / values.nbytes, matrices / (2 * m * n * k))
    return make_row(f"gpu-fp8-{n}x{k}-m{m}", "products/s", ours, theirs, "torch bfloat16", limit)


def _attention(batch: int, length: int, device: torch.device, read: float) -> Row:
    from herd.kernels.gpu.attention import paged_attention

    n_pages = batch * length // PAGE
    shape = (n_pages, GROUPS, PAGE, SIZE)
    pages = PageTensors(*(torch.randn(shape, device=device).bfloat16() for _ in range(2)))
    tables = torch.randperm(n_pages, device=device).to(torch.int32).view(batch, -1)
    sequence = torch.arange(batch, dtype=torch.int32, device=device)
    positions = torch.full((batch,), length - 1, dtype=torch.int32, device=device)
    q = torch.randn(batch, HEADS, SIZE, device=device).bfloat16()
    dense = [torch.randn(batch, GROUPS, length, SIZE, device=device).bfloat16() for _ in range(2)]
    ours, theirs = _pairs(
        [lambda: paged_attention(q, pages, tables, sequence, positions)],
        [lambda: F.scaled_dot_product_attention(q[:, :, None], *dense, enable_gqa=True)],
    )
    limit = read / (pages.keys.nbytes + pages.values.nbytes)
    return make_row(f"gpu-attention-{batch}x{length}", "passes/s", ours, theirs, "torch SDPA, dense", limit)


def _pairs(
    ours: Sequence[Callable[[], Tensor]], theirs: Sequence[Callable[[], Tensor]]
) -> tuple[list[float], list[float]]:
    """Rates of both in alternation, after a call of each."""
    _rate(ours[:1], 3), _rate(theirs[:1], 3)
    pairs = [(_rate(ours), _rate(theirs)) for _ in range(PAIRS)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _rate(calls: Sequence[Callable[[], Tensor]], repeats: int = 100) -> float:
    def work() -> None:
        for number in range(repeats):
            calls[number % len(calls)]()
        torch.cuda.synchronize()

    return repeats / seconds(work)


def _reading_rate(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes: the best of a few."""
    block = torch.empty(BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)

    def copy() -> None:
        target.copy_(block)
        torch.cuda.synchronize(device)

    copy()
    return 2 * BYTES / min(seconds(copy) for _ in range(7))
