"""One step over a few documents, through the engine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from herd.corpus.engine.job import Held, Job
from herd.corpus.engine.run import run
from herd.corpus.pipeline import read_kept
from herd.corpus.records import Document
from herd.corpus.settings import CurateSettings
from herd.corpus.step import KEEP, CorpusStep, Verdict, drop, edit
from herd.errors import NoEffectError
from herd.files import read_jsonl
from herd.progress import Silent


def verdicts_of(step: CorpusStep, documents: Sequence[Document]) -> list[Verdict]:
    """One verdict for each document, in their order. Ids must be distinct."""
    assert len({document.id for document in documents}) == len(documents)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        with suppress(NoEffectError):
            run(Job(Held(documents), CurateSettings(steps=()), out, out / "work", (step,)), Silent())
        kept = {document.id: document for document in read_kept(out)}
        removed = {row["id"]: row for path in (out / "removed").iterdir() for row in read_jsonl(path)}
    found = []
    for document in documents:
        if document.id in removed:
            row = removed[document.id]
            found.append(drop(row["reason"], row["detail"]))
        else:
            now = kept[document.id]
            found.append(KEEP if now.text == document.text else edit(now, "edited"))
    return found
