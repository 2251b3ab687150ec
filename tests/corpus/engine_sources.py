"""A folder to be curated: several formats, planted duplicates, frames and damage; and what a curation left of it."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_texts import changed, clean, contact_pages, foreign, framed, menus

from herd.corpus.records import Document
from herd.corpus.step import KEEP, Verdict


def documents() -> list[Document]:
    rng = random.Random(4)
    pages = clean(160)
    dated = [
        replace(page, url=f"http://e.org/{k % 6}", meta={"date": f"2024-0{k + 1}"}) for k, page in enumerate(pages[:9])
    ]
    copies = [replace(page, id=f"copy-{page.id}") for page in pages[20:30]]
    near = [replace(page, id=f"near-{page.id}", text=changed(page.text, 1, rng)) for page in pages[40:60]]
    again = [replace(page, text=page.text + " And more of it.") for page in pages[70:73]]  # ids that are taken
    found = [*dated, *pages[9:], *copies, *near, *again, *framed(24), *menus(8), *foreign(8), *contact_pages(8)]
    rng.shuffle(found)
    return found


def write_sources(folder: Path) -> int:
    """JSON lines plain and packed, Parquet with two row groups, damage; returns how many documents are in it."""
    folder.mkdir()
    found = documents()
    rows = [document.row() for document in found]
    parts = [rows[start::6] for start in range(6)]
    for number, part in enumerate(parts[:4]):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        if number % 2:
            with gzip.open(folder / f"{number}.jsonl.gz", "wt") as handle:
                handle.write(lines)
        else:
            (folder / f"{number}.jsonl").write_text(lines + "{broken\n", encoding="utf-8")
    for number, part in enumerate(parts[4:], 4):
        table = pa.table({key: [row.get(key, "") for row in part] for key in ("id", "text", "lang", "source", "url")})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=len(part) // 2 + 1)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(os.urandom(100) + b'{"text": "never whole"}')[:60])
    (folder / "odd.bin").write_bytes(b"\0")
    return len(found)


def results(out: Path) -> dict[str, bytes]:
    """Every file that a curation leaves, with its bytes."""
    paths = [path for path in out.rglob("*") if path.is_file() and "work" not in path.parts and path.name != ".lock"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


class Dies:
    """A step that kills its process: as often as the folder allows, or for ever."""

    name = "dies"

    def __init__(self, folder: str, times: int) -> None:
        self.folder, self.times = folder, times

    def judge(self, document: Document) -> Verdict:
        deaths = len(os.listdir(self.folder))
        if deaths < self.times and document.id.startswith("copy"):
            Path(self.folder, f"{os.getpid()}").touch()
            os._exit(9)
        return KEEP


def texts(found: Sequence[Document]) -> dict[str, str]:
    return {document.id: document.text for document in found}
