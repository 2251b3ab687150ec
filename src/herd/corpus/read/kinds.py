"""Which reader a file's name asks for, and how its file is cut into parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from herd.corpus.read.arc import read_arc
from herd.corpus.read.jsonl import read_jsonl
from herd.corpus.read.tables import read_arrow, read_parquet
from herd.corpus.read.text import read_html, read_text
from herd.corpus.read.unit import Part
from herd.corpus.read.warc import read_warc
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

Reader = Callable[[Part, ReadSettings], Iterator[Document | Unreadable]]


@dataclass(frozen=True)
class Kind:
    """`collection`: a file is one, others belong to their folder's. `ranges`: it can be read by byte ranges."""

    read: Reader
    endings: tuple[str, ...]
    collection: bool = True
    ranges: bool = False


KINDS = {
    "text": Kind(read_text, (".txt", ".md"), collection=False),
    "html": Kind(read_html, (".html", ".htm"), collection=False),
    "jsonl": Kind(read_jsonl, (".jsonl",), ranges=True),
    # .json.gz is how C4, Dolma and others name JSON lines
    "packed-jsonl": Kind(read_jsonl, (".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")),
    "parquet": Kind(read_parquet, (".parquet",)),
    "arrow": Kind(read_arrow, (".arrow",)),
    "packed-warc": Kind(read_warc, (".warc.gz", ".warc.zst", ".wet.gz", ".wet.zst"), collection=False, ranges=True),
    "warc": Kind(read_warc, (".warc", ".wet"), collection=False),
    "arc": Kind(read_arc, (".arc", ".arc.gz"), collection=False),
}


def kind_of(name: str) -> str:
    """The kind of a file of this name; "" for one that we cannot read."""
    low = name.lower()
    return next((name for name, kind in KINDS.items() if low.endswith(kind.endings)), "")


def accepted() -> tuple[str, ...]:
    return tuple(ending for kind in KINDS.values() for ending in kind.endings)
