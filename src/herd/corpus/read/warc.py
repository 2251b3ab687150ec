"""Web archives: WARC and WET records (ISO 28500), packed by record, as a whole, or not at all.

    a response or a resource gives its page (HTML through `extract`, plain text as it is), a conversion (WET) its text

Other records (requests, metadata, archive information, revisits) hold no text and are passed over. Whatever should
have been a page and is none is an `Unreadable` with its byte offset, and reading goes on behind it: at the next member
of a packed archive, at the next line that begins a record of a plain one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from herd.corpus.read.http import parse_fields
from herd.corpus.read.packing import PLAIN, Packed, magic_of
from herd.corpus.read.pages import Record, document_of
from herd.corpus.read.places import opened
from herd.corpus.read.unit import Part
from herd.corpus.read.window import Window
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

_VERSION = b"WARC/"
_NEXT = re.compile(rb"\n(?=WARC/[01]\.\d+\r?\n)")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_MOST_HEADER = 1 << 16
_WITHOUT_TEXT = frozenset({"warcinfo", "request", "metadata", "revisit", "continuation"})


def read_warc(part: Part, settings: ReadSettings) -> Iterator[Document | Unreadable]:
    """The documents of an archive, or of the records that begin in the part's range."""
    with opened(part.path) as handle:
        for found in records(handle, part, settings):
            if isinstance(found, Unreadable):
                yield found
            elif found.kind not in _WITHOUT_TEXT:
                yield document_of(found, part, settings)


def records(handle: IO[bytes], part: Part, settings: ReadSettings) -> Iterator[Record | Unreadable]:
    """Every record, and a verdict wherever there should be one."""
    magic = magic_of(handle, part.path)
    packed = Packed(handle, magic, part.start, part.end)
    window = Window(packed)
    if part.start and not window.recover(_VERSION, here=True):
        return
    while True:
        _skip_blank(window)
        if window.broken:
            error = window.broken
            yield Unreadable(part.name, f"byte {error.offset}", error.reason, error.detail)
            if magic == PLAIN or not window.recover(_VERSION):
                return
        elif not window.data:
            return
        else:
            found = _record(window, part.name, settings)
            if found is not None:
                yield found
                lost = isinstance(found, Unreadable) and found.reason == "bad_record"
                if lost and not window.broken and not _find_next(window):
                    return


def _skip_blank(window: Window) -> None:
    """Past the two empty lines behind a record, as many as there are."""
    while window.data or window.more():
        blank = len(window.data) - len(window.data.lstrip(b"\r\n"))
        window.drop(blank)
        if window.data:
            return


def _record(window: Window, name: str, settings: ReadSettings) -> Record | Unreadable | None:
    """The record at the window's beginning; None where the damage of the packing says it all."""
    place, mark = window.place, window.mark
    header = _header(window)
    if header is None:
        if window.broken:
            return None
        return Unreadable(name, place, "bad_record", f"no WARC header: {bytes(window.data[:40])!r}")
    head, size = header
    fields = parse_fields(head.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")[1:])
    length = fields.get("content-length", "")
    if not length.isdecimal():
        return Unreadable(name, place, "bad_record", f"Content-Length '{length[:40]}'")
    window.drop(size)
    wanted = int(length)
    kind = fields.get("warc-type", "").lower()
    if wanted > settings.max_record_bytes or kind in _WITHOUT_TEXT:
        window.drop(wanted)
        if kind in _WITHOUT_TEXT:
            return Record(kind, place, mark, fields, b"")
        detail = f"{wanted:,} bytes, at most {settings.max_record_bytes:,}"
        return Unreadable(name, place, "record_too_long", detail)
    whole = window.holds(wanted)
    if window.broken:
        return None
    there = _until_next(window, wanted)
    if not whole or there < wanted:
        window.drop(there)
        return Unreadable(name, place, "truncated", f"{there:,} of {wanted:,} bytes are there")
    data = bytes(window.data[:wanted])
    window.drop(wanted)
    return Record(kind, place, mark, fields, data)


def _header(window: Window) -> tuple[bytes, int] | None:
    """(header, bytes up to the content); None where there is none."""
    while window.holds(1):
        if not window.data.startswith(_VERSION[: len(window.data)]):
            return None
        end = _HEADER_END.search(window.data)
        if end:
            return bytes(window.data[: end.start()]), end.end()
        if len(window.data) > _MOST_HEADER or not window.more():
            return None
    return None


def _until_next(window: Window, wanted: int) -> int:
    """Bytes of the content that are there. A record that was cut short ends where the next member begins a record."""
    there = min(wanted, len(window.data))
    at = window.next_member(there)
    if at < there and window.data[at : at + len(_VERSION)] == _VERSION:
        return at
    return there


def _find_next(window: Window) -> bool:
    """Behind a record that is none: at the next line, or the next member, that begins one."""
    window.drop(1)
    while window.data or window.more():
        line = _NEXT.search(window.data)
        at = line.end() if line else len(window.data)
        member = window.next_member(at)
        if window.data[member : member + len(_VERSION)] == _VERSION:
            window.drop(member)
            return True
        if member < at:
            window.drop(member + 1)
            continue
        window.drop(max(0, len(window.data) - 32))
        if not window.more():
            break
    return window.broken is not None
