"""What this machine's memory, processor and kernels do at the most, measured: for `herd doctor` and `--dry-run`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from herd.devices import free_memory
from herd.kernels import linear_bf16, linear_fp8, linear_q8_0
from herd.kernels.library import kernels
from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES

_BLOCK = 2**29  # bytes: more than any cache but the largest servers'
_SIDE = 2048  # of the matrices
_PROMPT = 512  # rows that stand for a prompt
_SLOW_BLOCK = 2**25  # bytes of a weight where torch does the work: it may read less than 1 GB/s
_BOUND = 1200.0  # on activations, as the release has it (paper, section 6.2)
_ORDINARY = 0x38  # a byte of which each format makes ordinary numbers (unlike 0, whose pages the system need not keep)


class Rate(NamedTuple):
    """Of products with weights that are kept in one way."""

    bytes_per_second: float  # of weights, for one row of activations: a token of an answer
    flops: float  # FLOP/s for many rows: a prompt


def reading_rate() -> float:
    """Bytes a second of plain reading from memory, on torch's threads: the best of a few sums."""
    size = min(_BLOCK, free_memory(torch.device("cpu")) // 4)
    block = torch.ones(size // 8, dtype=torch.int64)
    return block.nbytes / _best(block.sum)


def matrix_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a square matrix product, on torch's threads: the best of a few."""
    side = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return 2 * _SIDE**3 / _best(lambda: side @ side)


def product_rates() -> dict[str, Rate]:
    """What herd's own products do with weights in BF16, FP8 (activations quantised too) and Q8_0."""

    def fp8(x: Tensor, weight: Tensor) -> Tensor:
        scale = torch.ones(len(weight), 1)
        return linear_fp8(x, weight.view(torch.float8_e4m3fn), scale, bound=_BOUND)

    def bf16(x: Tensor, weight: Tensor) -> Tensor:
        return linear_bf16(x, weight.view(torch.bfloat16))

    of_row = _SIDE // Q8_0_VALUES * Q8_0_BYTES
    return {"bf16": _rate(bf16, 2 * _SIDE), "fp8": _rate(fp8, _SIDE), "q8_0": _rate(linear_q8_0, of_row)}


def _rate(product: Callable[[Tensor, Tensor], Tensor], row_bytes: int) -> Rate:
    """Of a product of x [M, _SIDE] with a weight of rows of so many bytes."""
    most = _BLOCK if kernels() else _SLOW_BLOCK
    n_rows = min(most, free_memory(torch.device("cpu")) // 4) // row_bytes
    long, square = (torch.full((n, row_bytes), _ORDINARY, dtype=torch.uint8) for n in (n_rows, _SIDE))
    one, many = (torch.ones(m, _SIDE, dtype=torch.bfloat16) for m in (1, _PROMPT))
    reading, multiplying = _best(lambda: product(one, long)), _best(lambda: product(many, square))
    return Rate(long.nbytes / reading, 2 * _PROMPT * _SIDE**2 / multiplying)


def _best(work: Callable[[], object], most_seconds: float = 0.5) -> float:
    """Seconds of the fastest of the calls that fit into `most_seconds`; one at least."""
    best, until = float("inf"), time.perf_counter() + most_seconds
    while best == float("inf") or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best
