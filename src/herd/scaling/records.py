"""What one small run taught us, kept for ever: a refit needs the records, never the runs.

A file of records is JSON lines, one run a line. Runs of one compute budget differ by rounding to whole steps, so
`budgets` groups them by nearness of their FLOPs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from herd.errors import FormatError, InputError
from herd.files import read_jsonl, write_jsonl

_SAME_BUDGET = 1.25  # neighbours closer than this factor of FLOPs belong to one budget


@dataclass(frozen=True)
class RunRecord:
    """One finished run. `flops` is the whole training, forward and backward; `loss` is held out, in nats a token.

    `n_params_body` leaves out the vocabulary matrices (input embedding and output projection).
    """

    n_params: int
    n_params_body: int
    tokens: int
    flops: float
    loss: float
    shape: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_params", "n_params_body", "tokens", "flops", "loss"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} of a run must be finite and positive, not {value}", where=self.name)
        if self.n_params_body > self.n_params:
            raise InputError("the body cannot have more parameters than the model", where=self.name)

    @property
    def name(self) -> str:
        return f"run of {self.n_params:.3g} parameters on {self.tokens:.3g} tokens, seed {self.seed}"

    def size(self, which: Literal["body", "all"]) -> int:
        return self.n_params_body if which == "body" else self.n_params


def save_records(path: Path, records: Iterable[RunRecord]) -> int:
    """Write one JSON line a run; returns how many."""
    return write_jsonl(path, (dataclasses.asdict(record) for record in records))


def load_records(path: Path) -> list[RunRecord]:
    """Read records back. A line that is not a run record is a FormatError that names line and field."""
    return [_record(row, f"{path}, record {number}") for number, row in enumerate(read_jsonl(path), 1)]


def _record(row: Any, where: str) -> RunRecord:
    fields = {item.name: item for item in dataclasses.fields(RunRecord)}
    if not isinstance(row, dict):
        raise FormatError("a run record must be a JSON object", where=where)
    if unknown := sorted(row.keys() - fields.keys()):
        raise FormatError(f"unknown fields of a run record: {', '.join(unknown)}", where=where)
    if missing := sorted({"n_params", "n_params_body", "tokens", "flops", "loss"} - row.keys()):
        raise FormatError(f"a run record without {', '.join(missing)}", where=where)
    numbers = {name: row[name] for name in row if name != "shape"}
    if wrong := [n for n, v in numbers.items() if isinstance(v, bool) or not isinstance(v, (int, float))]:
        raise FormatError(f"not a number: {', '.join(wrong)}", where=where)
    if not isinstance(row.get("shape", {}), dict):
        raise FormatError("shape must be an object", where=where)
    try:
        return RunRecord(**row)
    except InputError as error:
        raise FormatError(error.message, where=where) from error


def budgets(records: Sequence[RunRecord]) -> dict[float, list[RunRecord]]:
    """Runs by compute budget, smallest first; the key is the geometric mean of the group's FLOPs."""
    groups: list[list[RunRecord]] = []
    for record in sorted(records, key=lambda item: item.flops):
        if groups and record.flops <= groups[-1][-1].flops * _SAME_BUDGET:
            groups[-1].append(record)
        else:
            groups.append([record])
    return {math.exp(sum(math.log(item.flops) for item in group) / len(group)): group for group in groups}


@dataclass(frozen=True)
class Cost:
    """Training FLOPs as factor * N^power * D. Exactly 6 * N * D where N counts every matrix that multiplies.

    With N the body alone, the output projection and attention make the power differ from 1; `measure` finds it.
    """

    factor: float = 6.0
    power: float = 1.0

    def flops(self, n: float, d: float) -> float:
        return float(self.factor * n**self.power * d)

    def size(self, flops: float, d: float) -> float:
        """N that spends `flops` on `d` tokens."""
        return float((flops / (self.factor * d)) ** (1 / self.power))

    @staticmethod
    def measure(n: Sequence[float], d: Sequence[float], flops: Sequence[float]) -> Cost:
        """Least squares of log FLOPs a token against log N; with a single size the power is 1."""
        size, per_token = np.log(n), np.log(flops) - np.log(d)
        if np.ptp(size) < 0.05:
            return Cost(float(np.exp(np.mean(per_token - size))), 1.0)
        power, level = np.polyfit(size, per_token, 1)
        return Cost(float(np.exp(level)), float(power))
