"""What this machine's memory and processor do at the most, measured in a second: for `herd doctor` and `--dry-run`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from herd.devices import free_memory

_BLOCK = 2**29  # bytes: more than any cache but the largest servers'
_SIDE = 2048  # of the matrices


def reading_rate() -> float:
    """Bytes a second of plain reading from memory, on torch's threads: the best of a few sums."""
    size = min(_BLOCK, free_memory(torch.device("cpu")) // 4)
    block = torch.ones(size // 8, dtype=torch.int64)
    return block.nbytes / _best(block.sum)


def matrix_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a square matrix product, on torch's threads: the best of a few."""
    side = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return 2 * _SIDE**3 / _best(lambda: side @ side)


def _best(work: Callable[[], object], most_seconds: float = 0.5) -> float:
    """Seconds of the fastest of the calls that fit into `most_seconds`; one at least."""
    best, until = float("inf"), time.perf_counter() + most_seconds
    while best == float("inf") or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best
