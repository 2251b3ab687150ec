"""Sides of a comparison: programs in processes of their own, asked over a pipe, which take turns; what each computed is
compared."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers" / "bin" / "python"
PEERS_VLLM = ROOT / ".venv-peers-vllm" / "bin" / "python"
# How far two losses of one batch may lie apart, relatively: rounding, summed in another order.
CLOSE = {"float32": 1e-3, "bfloat16": 2e-2}


class Program:
    """One side under its interpreter, with as many threads as torch has here; a line in, a line out."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            list(command), stdin=pipe, stdout=pipe, stderr=self._log, text=True, env=env, cwd=ROOT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        """What it says next. RuntimeError with its last words if it ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"bench"'):
                told: dict[str, Any] = json.loads(line)
                return told
        self._log.seek(0)
        raise RuntimeError(f"{self.name} ended: {self._log.read()[-3000:]}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


class Worker(Program):
    """A side that trains: does a step when it is told to (`bench.paced`)."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        super().__init__(name, command)
        self.rates: list[float] = []
        self.losses: list[float] = []

    def check(self) -> list[float]:
        """What the side found before its first step."""
        found: list[float] = self.told()["check"]
        return found

    def step(self) -> None:
        self.ask("go")
        told = self.told()
        self.rates.append(told["rate"])
        self.losses.append(told["loss"])

    def peak(self) -> float:
        """MiB of resident memory at the most, after the last step."""
        self.ask("go")
        return float(self.told()["peak_mib"])


def same(what: str, ours: Sequence[float], theirs: Sequence[float], dtype: str) -> None:
    """RuntimeError unless both sides computed the same: a comparison of different work proves nothing."""
    far = max(abs(a - b) / max(abs(a), abs(b), 1e-9) for a, b in zip(ours, theirs, strict=True))
    if far > CLOSE[dtype]:
        raise RuntimeError(f"{what}: herd {list(ours)}, peer {list(theirs)}: {far:.1e} apart, more than rounding")
