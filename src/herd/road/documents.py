"""Stage `documents`: everything to be curated, from the paddock, the hub, the standard library and the user's folder.

Artifacts: documents.jsonl.gz; unreadable.jsonl, what could not be read and why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from herd.corpus.documents import Document, Unreadable, read_documents
from herd.corpus.stdlib import stdlib_documents
from herd.files import read_jsonl, write_jsonl
from herd.road.settings import Documents
from herd.stages import Context

OWN = ("paddock", "planted", "stdlib-docs", "stdlib-code")  # sources that recipes name


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Documents = ctx.settings
    counts: dict[str, int] = {}
    unreadable: list[Unreadable] = []

    def good() -> Iterator[dict[str, Any]]:
        for found in _all(ctx, settings):
            if isinstance(found, Unreadable):
                unreadable.append(found)
            else:
                counts[found.source] = counts.get(found.source, 0) + 1
                yield found.row()

    total = write_jsonl(ctx.out / "documents.jsonl.gz", good())
    write_jsonl(ctx.out / "unreadable.jsonl", map(asdict, unreadable))
    if unreadable:
        ctx.progress.note(f"{len(unreadable)} inputs could not be read; they are listed in unreadable.jsonl")
    return {"documents": total, "unreadable": len(unreadable), "by_source": counts}


def _all(ctx: Context, settings: Documents) -> Iterator[Document | Unreadable]:
    if "world" in ctx.inputs:
        yield from read_all(ctx.inputs["world"])
    if "hub" in ctx.inputs:
        yield from read_all(ctx.inputs["hub"])
        yield from (Unreadable(**row) for row in read_jsonl(ctx.inputs["hub"] / "unreadable.jsonl"))
    if settings.stdlib_modules:
        yield from stdlib_documents(settings.stdlib_modules, ctx.progress)
    if settings.user:
        yield from map(_kept_apart, read_documents(Path(settings.user), ctx.progress, settings=settings.read))


def _kept_apart(found: Document | Unreadable) -> Document | Unreadable:
    """A user's folder named `paddock` is not the paddock, whose weight and whose trust it would get."""
    if isinstance(found, Document) and found.source in OWN:
        return replace(found, source=f"user-{found.source}")
    return found


def read_all(folder: Path) -> Iterator[Document]:
    """The documents of a stage's folder."""
    yield from (Document.from_row(row) for row in read_jsonl(folder / "documents.jsonl.gz"))


def folder_state(path: str) -> str:
    """A hash of names, sizes and modification times; InputError when nothing is there, or nothing may be entered."""
    root = Path(path)
    read_documents(root)  # refuses the path at once, with the accepted formats; reads nothing before it is iterated
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
