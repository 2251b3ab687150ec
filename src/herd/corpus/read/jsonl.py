"""JSON lines, plain or packed by gzip or zstd: one document a line, {"text": ...} or {"html": ...}."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO

from herd.corpus.read.lines import TooLong, numbered, too_long
from herd.corpus.read.packing import GZIP, PLAIN, ZSTD, BrokenPacking, Packed, Unpacked
from herd.corpus.read.places import opened
from herd.corpus.read.rows import from_row
from herd.corpus.read.unit import Part
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

_PACKING = {".gz": GZIP, ".zst": ZSTD}


def read_jsonl(part: Part, settings: ReadSettings) -> Iterator[Document | Unreadable]:
    """id, lang, source and url are taken when given. In a byte range the lines that begin in it are read."""
    number = 0
    magic = next((magic for ending, magic in _PACKING.items() if part.path.lower().endswith(ending)), PLAIN)
    with opened(part.path) as raw:
        try:
            handle: IO[bytes] = raw if magic == PLAIN else io.BufferedReader(Unpacked(Packed(raw, magic)), 1 << 16)
            for number, offset, line in numbered(handle, settings.max_line_bytes, _go_to_start(handle, part)):
                if part.end and offset >= part.end:
                    return
                place = f"byte {offset}" if part.end else f"line {number}, byte {offset}"
                if isinstance(line, TooLong):
                    yield too_long(part.name, place, line, settings)
                elif line.strip():
                    default_id = f"{part.name}@{offset}" if part.end else f"{part.name}:{number}"
                    yield _document(line, part, place, default_id, settings)
        except BrokenPacking as error:
            yield Unreadable(part.name, f"after line {number}", error.reason, error.detail)


def _go_to_start(handle: IO[bytes], part: Part) -> int:
    """The first line that begins in the range: the one before belongs to the range before."""
    if not part.start:
        return 0
    handle.seek(part.start - 1)
    while not (line := handle.readline(1 << 20)).endswith(b"\n") and line:
        pass
    return handle.tell()


def _document(line: bytes, part: Part, place: str, default_id: str, settings: ReadSettings) -> Document | Unreadable:
    try:
        row = json.loads(line.decode("utf-8-sig" if line.startswith(b"\xef") else "utf-8"))
    except UnicodeDecodeError as error:
        return Unreadable(part.name, place, "not_utf8", str(error.reason))
    except (ValueError, RecursionError) as error:  # no JSON, or numbers and brackets beyond Python's limits
        return Unreadable(part.name, place, "bad_json", str(error))
    if not isinstance(row, dict):
        detail = f"a JSON object is expected, found {type(row).__name__}"
        return Unreadable(part.name, place, "no_text", detail)
    return from_row(row, part.name, place, default_id, part.source, settings)
