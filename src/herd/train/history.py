"""What happened at every step: `history.jsonl`, one line an update, and the `TrainResult` made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from herd.files import storage_errors, write_jsonl


@dataclass(frozen=True)
class StepRecord:
    """One update. `tokens` passed through the network since the run began; `loss` is per counted token or pair."""

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_s: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """A finished run. `seconds` is time spent in steps, over all the processes that the run took."""

    history: list[StepRecord]
    tokens: int
    seconds: float
    metrics: dict[str, float]

    @property
    def losses(self) -> list[float]:
        return [record.loss for record in self.history]


class History:
    """Appends to `history.jsonl`. A resumed run first cuts what came after its checkpoint.

    Of many processes one `writes`; the others keep the records in memory.
    """

    def __init__(self, folder: Path, keep_until: int, writes: bool = True) -> None:
        self.path = folder / "history.jsonl"
        self.records = [record for record in read_history(self.path) if record.step <= keep_until]
        self._handle: IO[str] | None = None
        if writes:
            write_jsonl(self.path, (asdict(record) for record in self.records))
            self._handle = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  # lives as long as the run

    def append(self, record: StepRecord) -> None:
        self.records.append(record)
        if self._handle is None:
            return
        with storage_errors(self.path):
            self._handle.write(json.dumps(asdict(record)) + "\n")
            self._handle.flush()

    def close(self) -> None:
        if self._handle is None:
            return
        with storage_errors(self.path):  # what a full disk refused before is written once more here
            self._handle.close()


def read_history(path: Path) -> list[StepRecord]:
    """The whole lines of a history; a kill can leave the last one cut, and it is trained again anyway."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(StepRecord(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            break
    return records
