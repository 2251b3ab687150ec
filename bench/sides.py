"""Sides of a comparison in processes of their own, whose steps alternate; what each computed is compared."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PEERS = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"
# How far two losses of one batch may lie apart, relatively: rounding, summed in another order.
CLOSE = {"float32": 1e-3, "bfloat16": 2e-2}


class Worker:
    """One side: a program of its own. A line in makes it do a step, a line out tells of it."""

    def __init__(self, arguments: list[str]) -> None:
        root = Path(__file__).resolve().parent.parent
        threads = str(torch.get_num_threads())
        env = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}", "OMP_NUM_THREADS": threads}
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.rates: list[float] = []
        self.losses: list[float] = []

    def check(self) -> list[float]:
        """What the side found before its first step."""
        found: list[float] = self._told()["check"]
        return found

    def step(self) -> None:
        self._go()
        told = self._told()
        self.rates.append(told["rate"])
        self.losses.append(told["loss"])

    def peak(self) -> float:
        """MiB of resident memory at the most, after the last step."""
        self._go()
        found = float(self._told()["peak_mib"])
        self.process.wait(60)
        return found

    def _go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def _told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for line in self.process.stdout:
            if line.startswith('{"bench"'):
                told: dict[str, Any] = json.loads(line)
                return told
        raise RuntimeError(f"a side of the benchmark ended: {self.process.stderr.read()[-2000:]}")


def same(what: str, ours: Sequence[float], theirs: Sequence[float], dtype: str) -> None:
    """RuntimeError unless both sides computed the same: a comparison of different work proves nothing."""
    far = max(abs(a - b) / max(abs(a), abs(b), 1e-9) for a, b in zip(ours, theirs, strict=True))
    if far > CLOSE[dtype]:
        raise RuntimeError(f"{what}: herd {list(ours)}, peer {list(theirs)}: {far:.1e} apart, more than rounding")
