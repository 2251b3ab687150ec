"""A teacher's answers on disk: the k likeliest ids of every trained place, so that no teacher is needed in training.

The folder holds flat arrays that are mapped, not read: `ids.bin`, `logprobs.bin` (float16), `rest.bin` (float32, the
probability of everything else), `crc.bin` (of each row's tokens: answers beside other rows would be a silently wrong
signal), and their sizes in `teacher.json`. Teacher and student must read ids alike, so the fingerprints of their
tokenizers are compared.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from herd.devices import device_of
from herd.errors import ArtifactError, SettingError
from herd.files import atomic_folder, read_json, write_json
from herd.llama.model import Llama
from herd.progress import Progress, Silent
from herd.train.batch import Batch
from herd.train.objectives.language_modelling import hidden_states
from herd.train.packing import Row, collate
from herd.train.sources import RowSource

Answer = Callable[[Batch, int, float], dict[str, Tensor]]  # (batch, k, temperature), as of `topk_answers`
_CHUNK = 1024  # rows of logits alive at once


@dataclass(frozen=True)
class TeacherTopK:
    """Stored answers: R rows of T places with k ids each. `temperature` is the one they were taken at."""

    temperature: float
    k: int
    ids_RTk: NDArray[Any]
    logprobs_RTk: NDArray[Any]
    rest_RT: NDArray[Any]
    crc_R: NDArray[Any]
    where: str

    @staticmethod
    def open(folder: Path, tokenizer_fingerprint: str) -> TeacherTopK:
        """Map a folder of `store_teacher_topk`.

        Raises SettingError when the student's tokenizer is another than the teacher's, ArtifactError for damage.
        """
        facts = read_json(folder / "teacher.json")
        if facts["tokenizer"] != tokenizer_fingerprint:
            raise SettingError(
                f"the teacher reads ids by tokenizer {facts['tokenizer']}, the student by {tokenizer_fingerprint}",
                where=str(folder),
                mend="distil between models of one tokenizer, or let the teacher write text and finetune on that",
            )
        rows, length, k = facts["rows"], facts["length"], facts["k"]
        return TeacherTopK(
            facts["temperature"],
            k,
            _mapped(folder / "ids.bin", facts["ids"], (rows, length, k)),
            _mapped(folder / "logprobs.bin", "float16", (rows, length, k)),
            _mapped(folder / "rest.bin", "float32", (rows, length)),
            _mapped(folder / "crc.bin", "uint32", (rows,)),
            str(folder),
        )

    def beside(self, index: int, row: Row) -> Row:
        """The row with the teacher's answers in its extras."""
        if index >= len(self.crc_R):
            raise ArtifactError(f"the teacher answered {len(self.crc_R)} rows; row {index} is asked", where=self.where)
        if crc_of(row) != int(self.crc_R[index]):
            raise ArtifactError(
                f"row {index} is not the row that the teacher answered",
                where=self.where,
                mend="store the teacher's answers again for this data, seed and row length",
            )
        extras = {
            "teacher_ids_BTk": self.ids_RTk[index].astype(np.int64),
            "teacher_logprobs_BTk": self.logprobs_RTk[index].astype(np.float32),
            "teacher_rest_BT": np.asarray(self.rest_RT[index], np.float32),
            "teacher_temperature_host": np.float32(self.temperature),
        }
        return replace(row, extras={**row.extras, **extras})


@dataclass(frozen=True)
class TaughtRows:
    """The rows of a source with a teacher's answers beside them."""

    rows: RowSource
    teacher: TeacherTopK

    def index(self, number: int) -> int:
        return self.rows.index(number)

    def at(self, index: int) -> Row:
        return self.teacher.beside(index, self.rows.at(index))


def store_teacher_topk(
    folder: Path,
    model: nn.Module,
    rows: RowSource,
    n_rows: int,
    k: int,
    *,
    tokenizer_fingerprint: str,
    temperature: float = 1.0,
    rows_per_batch: int = 8,
    progress: Progress | None = None,
    answer: Answer | None = None,
) -> None:
    """Let the teacher read rows 0 to n_rows - 1 (by index) and keep its k likeliest next ids; folder whole or not.

    Takes n_rows * T * k * 4 bytes (6 when the vocabulary is over 65,536). `answer` gives the answers to a batch where
    `model` is on many processes, and only says its shape; None: `topk_answers` of the model.
    """
    vocabulary = cast(Llama, model).config.vocab_size
    if not 1 <= k <= vocabulary:
        raise SettingError(f"k is {k}; the teacher knows {vocabulary} ids")
    progress, answer = progress or Silent(), answer or partial(topk_answers, model)
    ids = "uint16" if vocabulary <= 1 << 16 else "uint32"
    kinds = {"ids": ids, "logprobs": "float16", "rest": "float32"}
    crcs, length = [], 0
    with atomic_folder(folder) as aside, ExitStack() as stack:
        files = {name: stack.enter_context(open(aside / f"{name}.bin", "wb")) for name in kinds}
        for some in groups(rows, n_rows, rows_per_batch):
            crcs += [crc_of(row) for row in some]
            length = len(some[0].tokens_T)
            for name, values in answer(collate(some), k, temperature).items():
                files[name].write(values.numpy().astype(kinds[name]).tobytes())
            progress.update(len(crcs), n_rows, "rows")
        (aside / "crc.bin").write_bytes(np.asarray(crcs, np.uint32).tobytes())
        facts = {"rows": n_rows, "length": length, "k": k, "ids": ids}
        write_json(aside / "teacher.json", {**facts, "temperature": temperature, "tokenizer": tokenizer_fingerprint})


def groups(rows: RowSource, n_rows: int, rows_per_batch: int) -> Iterator[list[Row]]:
    """Rows 0 to n_rows - 1 by index, so many at a time."""
    for start in range(0, n_rows, rows_per_batch):
        yield [rows.at(index) for index in range(start, min(start + rows_per_batch, n_rows))]


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not path.exists() or path.stat().st_size != size:
        raise ArtifactError("a file of the teacher's answers is missing or cut short", where=str(path))
    return np.memmap(path, kind, "r", shape=shape)


@torch.no_grad()
def topk_answers(model: nn.Module, batch: Batch, k: int, temperature: float) -> dict[str, Tensor]:
    """ids [B, T, k], logprobs [B, T, k] at `temperature`, rest [B, T], in main memory; zeros where the weight is 0."""
    B, T = batch.tokens_BT.shape
    device = device_of(model)
    found = {
        "ids": torch.zeros(B * T, k, dtype=torch.int64, device=device),
        "logprobs": torch.zeros(B * T, k, device=device),
        "rest": torch.zeros(B * T, device=device),
    }
    for places, logprobs_CV in _logprobs(model, batch.to(device), temperature):
        best_Ck, ids_Ck = logprobs_CV.topk(k, dim=-1)
        found["ids"][places], found["logprobs"][places] = ids_Ck, best_Ck
        # Summed over the others, not 1 - sum: the remainder of a sure teacher would drown in rounding.
        found["rest"][places] = logprobs_CV.exp_().scatter_(1, ids_Ck, 0.0).sum(-1)
    return {name: values.view(B, T, *values.shape[1:]).cpu() for name, values in found.items()}


def _logprobs(model: nn.Module, batch: Batch, temperature: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of places that count, with their float32 log-probabilities over the vocabulary."""
    hidden_ND = hidden_states(model, batch)
    counted_N = batch.places()
    for start in range(0, len(counted_N), _CHUNK):
        places = counted_N[start : start + _CHUNK]
        logits_CV = cast(Llama, model).logits(hidden_ND[places])
        yield places, torch.log_softmax(logits_CV / temperature, -1)


def crc_of(row: Row) -> int:
    """A checksum of the row's tokens."""
    return zlib.crc32(np.ascontiguousarray(row.tokens_T).tobytes())
