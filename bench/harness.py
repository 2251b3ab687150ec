"""What every benchmark row shares: the row's fields, the machine's name and limits, medians of paired runs.

A row is one JSON line: row, unit, herd, peer, peer_name, limit, vs_peer, vs_limit, machine, date. Figures are rates
(more is better). `vs_peer` is the median of the ratios of interleaved pairs, not the ratio of the medians: a
neighbour on the machine then slows both halves of a pair. `peer` and `vs_peer` are null without the peer.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    row: str
    unit: str
    herd: float
    peer: float | None
    peer_name: str
    limit: float | None
    vs_peer: float | None
    vs_limit: float | None
    machine: str
    date: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def to_text(self) -> str:
        peer = f"{self.peer:,.0f} ({self.vs_peer:.2f}x)" if self.peer and self.vs_peer else "not installed"
        limit = f"{self.limit:,.0f} ({self.vs_limit:.0%} reached)" if self.limit and self.vs_limit else "-"
        return f"{self.row}: {self.herd:,.0f} {self.unit}; {self.peer_name} {peer}; limit {limit}; {self.machine}"


def make_row(
    row: str,
    unit: str,
    herd: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    limit: float | Sequence[float] | None,
) -> Row:
    """A row out of interleaved rates: `herd[i]` and `peer[i]` ran one after the other; `peer` may be empty.

    A limit measured in the same alternation is a sequence: `vs_limit` is the median of its pairs then too.
    """
    ours = statistics.median(herd)
    theirs = statistics.median(peer) if peer else None
    ratio = statistics.median(a / b for a, b in zip(herd, peer, strict=True)) if peer else None
    limits = [limit] * len(herd) if isinstance(limit, float | int) else limit
    reached = statistics.median(a / b for a, b in zip(herd, limits, strict=True)) if limits else None
    limit = statistics.median(limits) if limits else None
    return Row(
        row,
        unit,
        round(ours, 3),
        None if theirs is None else round(theirs, 3),
        peer_name,
        None if limit is None else round(limit, 3),
        None if ratio is None else round(ratio, 4),
        None if reached is None else round(reached, 4),
        machine(),
        datetime.date.today().isoformat(),
    )


def machine() -> str:
    """Processor, cores and threads in use, e.g. "Intel Xeon, 2 cores, 2 threads"."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = re.sub(r"\((R|TM)\)|\s+", " ", found[1]).strip() if found else model
    return f"{re.sub(' +', ' ', model)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def matrix_rate(dtype: torch.dtype, size: int = 2048, repeats: int = 7, device: torch.device | str = "cpu") -> float:
    """Measured FLOP/s of a square matrix product: the best of a few, what this machine can do at all."""
    a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))

    def product() -> None:
        torch.mm(a, b, out=out)  # a result in fresh memory would time the kernel's handing out of pages, too
        if a.device.type == "cuda":
            torch.cuda.synchronize(a.device)

    return 2 * size**3 / min(seconds(product) for _ in range(repeats))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_result(folder: Path, row: Row) -> Path:
    """Keep a dated result: `YYYY-MM-DD-<row>-<machine>.json`."""
    name = re.sub(r"[^a-z0-9]+", "-", row.machine.lower()).strip("-")
    path = folder / f"{row.date}-{row.row}-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(row.to_json() + "\n", encoding="utf-8")
    return path
