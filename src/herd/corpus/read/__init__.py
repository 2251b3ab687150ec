"""Reading: whatever a user has, as documents and as verdicts on what is none.

    unit.py places.py kinds.py    units of reading, where they lie, which reader they ask for
    text.py jsonl.py tables.py warc.py arc.py    the readers: one file, or a part of one
    packing.py window.py lines.py http.py rows.py pages.py    what they share

    units("crawl/") -> [Unit, ...]        cheap, the same for the same files
    read(unit) -> Document | Unreadable, ...

Nothing in a file stops the run, and nothing is passed over silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from herd.corpus.read.kinds import KINDS, accepted, kind_of
from herd.corpus.read.places import File, found
from herd.corpus.read.tables import row_groups
from herd.corpus.read.unit import Part, Unit
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

__all__ = ["Part", "Unit", "accepted_formats", "read", "read_part", "units"]

_CARDS = ("readme.md", "license.md")  # beside a dataset's data: about it, not of it
_MARKS = ("dataset_info.json", "dataset_dict.json", ".gitattributes", "state.json")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # as datasets name their files
_TABLES = ("parquet", "arrow")
MEND = (
    f"hand in a folder, a file or an address of documents: {', '.join(accepted())}; JSON lines have one "
    '{"text": ..., "lang"?: ..., "source"?: ...} a line, tables a column "text", texts are in UTF-8'
)


def accepted_formats() -> str:
    return ", ".join(accepted())


def units(source: str | Path, settings: ReadSettings | None = None) -> tuple[list[Unit], list[Unreadable]]:
    """What is to be read under a path or an address, in the order of the names, and what cannot be.

    A large file is cut (Parquet by row groups, JSON lines and packed archives by bytes), small ones go together up to
    `unit_bytes`. Raises InputError when there is no such place or no file in it.
    """
    settings = settings or ReadSettings()
    parts, aside = parts_of(source, settings)
    together: list[list[Part]] = []
    room = 0
    for part in parts:
        if room < part.size or not together:
            together.append([])
            room = settings.unit_bytes
        together[-1].append(part)
        room -= part.size
    return [Unit(tuple(group)) for group in together], aside


def parts_of(source: str | Path, settings: ReadSettings) -> tuple[list[Part], list[Unreadable]]:
    """The same, file by file and not put together."""
    files, aside = found(source, MEND)
    root = str(source).rstrip("/")
    alone = len(files) == 1 and files[0].path in (root, os.path.abspath(root))
    names = {file.name.rpartition("/")[2].lower() for file in files}
    is_dataset = not names.isdisjoint(_MARKS) or any(kind_of(name) in _TABLES for name in names)
    parts: list[Part] = []
    for file in files:
        why = _no_document(file, is_dataset)
        if why:
            aside.append(why)
        else:
            parts += _cut(file, _source(file, root, alone), settings)
    return parts, aside


def read(unit: Unit, settings: ReadSettings | None = None) -> Iterator[Document | Unreadable]:
    """Everything in a unit, in order."""
    for part in unit.parts:
        yield from read_part(part, settings or ReadSettings())


def read_part(part: Part, settings: ReadSettings) -> Iterator[Document | Unreadable]:
    """One part; each gives something: a document or a verdict."""
    silent = True
    try:
        for item in KINDS[part.kind].read(part, settings):
            silent = False
            yield item
    except PermissionError as error:
        yield Unreadable(part.name, "", "no_permission", error.strerror or "")
    except OSError as error:
        yield Unreadable(part.name, "", "unreadable_disk", error.strerror or str(error))
    else:
        if silent and not part.start:
            yield Unreadable(part.name, "", "no_text", "there is no text in it" if part.size else "the file is empty")


def part_of(path: str, name: str, source: str, size: int = 0) -> Part:
    """A whole file by another name, as a dataset's file that was fetched to somewhere."""
    return Part(path, name, source, kind_of(path), size)


def _no_document(file: File, is_dataset: bool) -> Unreadable | None:
    base = file.name.rpartition("/")[2]
    if file.size < 0:
        return Unreadable(file.name, "", "no_file", "a broken link or a device")
    if base.startswith("."):
        return Unreadable(file.name, "", "hidden_file")
    if not kind_of(base):
        return Unreadable(file.name, "", "unknown_format", f"accepted: {accepted_formats()}")
    if is_dataset and base.lower() in _CARDS:
        return Unreadable(file.name, "", "dataset_card", "it speaks of the data beside it")
    return None


def _source(file: File, root: str, alone: bool) -> str:
    """A file of records is a collection of its own, or the shard of one; pages and archives are one by folder: the
    first below the root, or the root."""
    base = file.name.rpartition("/")[2]
    if KINDS[kind_of(base)].collection or alone:
        return _SHARD.sub("", base.split(".", 1)[0])
    inside = file.name.split("/")
    return inside[0] if len(inside) > 1 else Path(root).resolve().name or "documents"


def _cut(file: File, source: str, settings: ReadSettings) -> Sequence[Part]:
    kind = kind_of(file.name)
    whole = Part(file.path, file.name, source, kind, file.size, file.stamp)
    if kind == "parquet":
        groups = row_groups(file.path)
        if len(groups) > 1:
            return [replace(whole, start=first, group=number, size=size) for number, (first, size) in enumerate(groups)]
    if KINDS[kind].ranges and file.size > settings.unit_bytes:
        edges = [*range(0, file.size, settings.unit_bytes), file.size]
        return [replace(whole, start=start, end=end, size=end - start) for start, end in pairwise(edges)]
    return [whole]
