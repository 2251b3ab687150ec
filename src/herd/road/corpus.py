"""Stage `corpus`: curation. Artifacts: kept/, removed/, unreadable/, counts/, report.json, planted.json.

planted.json says how many of the pages that the world planted were caught: removed, or, for personal data, with
none of it left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd.corpus.documents import Document, Unreadable
from herd.corpus.engine.job import Job
from herd.corpus.engine.run import run as curate
from herd.corpus.pipeline import read_kept
from herd.files import write_json
from herd.paddock.noise import KINDS, Planted
from herd.road.documents import read_all
from herd.road.world import read_truth
from herd.stages import Context


@dataclass(frozen=True)
class _Documents:
    """The artifact of the stage `documents`, read as the artifact that it is: damage in it ends the run."""

    folder: Path

    def __len__(self) -> int:
        return 1

    def read(self, unit: int) -> Iterator[tuple[str, Document | Unreadable]]:
        yield from ((self.name(unit), one) for one in read_all(self.folder))

    def stamp(self, unit: int) -> str:
        stat = (self.folder / "documents.jsonl.gz").stat()
        return f"{self.folder} {stat.st_size} {stat.st_mtime_ns}"

    def name(self, unit: int) -> str:
        return "the documents of this run"

    def size(self, unit: int) -> int:
        return (self.folder / "documents.jsonl.gz").stat().st_size


def run(ctx: Context) -> Mapping[str, Any]:
    report = curate(Job(_Documents(ctx.inputs["documents"]), ctx.settings, ctx.out, ctx.scratch), ctx.progress)
    metrics: dict[str, Any] = {"documents_in": report.documents_in, "documents_out": report.documents_out}
    if "world" in ctx.inputs:
        found = measure(read_truth(ctx.inputs["world"]), list(read_kept(ctx.out)), read_all(ctx.inputs["world"]))
        write_json(ctx.out / "planted.json", found)
        metrics["recall"] = {kind: row["recall"] for kind, row in found["kinds"].items()}
        metrics["clean_kept"] = found["clean_kept"]
    return metrics


def measure(truth: Mapping[str, Planted], kept: list[Document], all_pages: Iterator[Document]) -> dict[str, Any]:
    """Recall by kind, and the share of good pages that were kept.

    A copy is caught when it or its original is gone: which of two equal pages stays says nothing.
    """
    texts = {page.id: page.text for page in kept}
    kinds: dict[str, dict[str, Any]] = {kind: {"planted": 0, "caught": 0} for kind in KINDS}
    for name, planted in truth.items():
        kinds[planted.kind]["planted"] += 1
        kinds[planted.kind]["caught"] += _caught(name, planted, texts)
    for row in kinds.values():
        row["recall"] = row["caught"] / row["planted"] if row["planted"] else None
    originals = {planted.copy_of for planted in truth.values()}
    clean = [page.id for page in all_pages if page.id not in truth and page.id not in originals]
    return {"kinds": kinds, "clean": len(clean), "clean_kept": sum(name in texts for name in clean) / len(clean)}


def _caught(name: str, planted: Planted, texts: Mapping[str, str]) -> bool:
    if name not in texts:
        return True
    if planted.kind == "duplicate":
        return planted.copy_of not in texts
    return bool(planted.secrets) and not any(secret in texts[name] for secret in planted.secrets)
