"""Rows with the distribution of the teacher in a folder beside them: read once, kept in the stage's scratch."""

from __future__ import annotations

from pathlib import Path

import torch

from herd.errors import SettingError
from herd.posttrain.adoption import TeacherSettings
from herd.road.adopt.graph import Training
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
    teacher, train = adoption.teacher, adoption.train
    assert teacher is not None
    folder, stored = Path(teacher.folder), ctx.scratch / f"teacher-{name}"
    fingerprint = Tokenizer.load(folder).fingerprint
    if not stored.exists():
        device = torch.device(ctx.device)
        store_teacher_topk(
            stored,
            load_model(folder, dtype=compute_dtype(train, device), device=device),
            rows,
            rows.n_rows,
            teacher.logits.top_k,
            tokenizer_fingerprint=fingerprint,
            temperature=teacher.logits.temperature,
            rows_per_batch=train.rows_per_microbatch,
            progress=ctx.progress,
        )
    return TaughtRows(rows, TeacherTopK.open(stored, fingerprint))
