"""Rows with the distribution of the teacher in a folder beside them: read once, kept in the stage's scratch."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from herd.errors import SettingError
from herd.posttrain.adoption import Adoption, TeacherSettings
from herd.road.adopt.graph import Training
from herd.road.adopt.spread import shared_teacher
from herd.stages import Context
from herd.text import Tokenizer
from herd.train.precision import compute_dtype
from herd.train.sources import PackedRows
from herd.train.teacher import TaughtRows, TeacherTopK, store_teacher_topk
from herd.weights.hf import load_config, load_model


def check_teacher(teacher: TeacherSettings, student: Tokenizer, seq_len: int) -> None:
    """SettingError for a teacher that reads other ids, or shorter rows: before it reads for hours."""
    folder = Path(teacher.folder)
    if Tokenizer.load(folder).fingerprint != student.fingerprint:
        raise SettingError(
            "the teacher's tokenizer is another than the student's, so their distributions cannot be compared",
            where=str(folder),
            mend="serve the teacher and give its URL: it then teaches by its answers, in text",
        )
    if (context := load_config(folder).max_seq_len) < seq_len:
        raise SettingError(
            f"the teacher's context is {context:,} tokens, and rows have {seq_len:,}",
            where=str(folder),
            mend=f"give --set train.seq_len={context} and a batch_tokens that it divides",
        )


def taught(ctx: Context, settings: Training, rows: PackedRows, name: str) -> TaughtRows:
    """The rows of `name` ("learnt", "held") with the teacher's `top_k` answers at every trained place."""
    adoption = settings.adoption
    teacher = adoption.teacher
    assert teacher is not None
    folder, stored = Path(teacher.folder), ctx.scratch / f"teacher-{name}"
    fingerprint = Tokenizer.load(folder).fingerprint
    spread = shared_teacher(adoption, folder, ctx.mesh)
    if spread is not None:
        spread.answer(stored, rows, teacher.logits.top_k, teacher.logits.temperature, fingerprint, ctx)
    elif ctx.is_first and not stored.exists():
        _read(ctx, adoption, rows, stored, fingerprint)
    while not stored.exists():  # the first of many processes reads, maybe for longer than a collective would wait
        time.sleep(1.0)
    return TaughtRows(rows, TeacherTopK.open(stored, fingerprint))


def _read(ctx: Context, adoption: Adoption, rows: PackedRows, stored: Path, fingerprint: str) -> None:
    """Let the teacher read in this process."""
    assert adoption.teacher is not None
    folder, logits, device = Path(adoption.teacher.folder), adoption.teacher.logits, torch.device(ctx.device)
    store_teacher_topk(
        stored,
        load_model(folder, dtype=compute_dtype(adoption.train, device), device=device),
        rows,
        rows.n_rows,
        logits.top_k,
        tokenizer_fingerprint=fingerprint,
        temperature=logits.temperature,
        rows_per_batch=adoption.train.rows_per_microbatch,
        progress=ctx.progress,
    )
