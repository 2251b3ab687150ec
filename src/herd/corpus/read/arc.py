"""The archives before WARC: ARC 1 and 2 (Internet Archive, Burner and Kahle 1996), as Common Crawl had until 2012.

A record is a line (URL, IP address, date, type, length in version 1) and its content. Damage is counted with its
offset; reading goes on at the next line that can begin a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from herd.corpus.read.packing import PLAIN, Packed, magic_of
from herd.corpus.read.pages import Record, document_of
from herd.corpus.read.places import opened
from herd.corpus.read.unit import Part
from herd.corpus.read.window import Window
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

_LINE = re.compile(rb"(\S+) (\S+) (\d{8,20}) (\S+)(?: \S+)* (\d+)\r?\n")
_NEXT = re.compile(rb"\n(?=[a-z]+:\S+ \S+ \d{8,20} )")
_MOST_LINE = 1 << 14


def read_arc(part: Part, settings: ReadSettings) -> Iterator[Document | Unreadable]:
    with opened(part.path) as handle:
        magic = magic_of(handle, part.path)
        window = Window(Packed(handle, magic, part.start, part.end))
        while True:
            _skip_blank(window)
            if window.broken:
                error = window.broken
                yield Unreadable(part.name, f"byte {error.offset}", error.reason, error.detail)
                if magic == PLAIN or not window.recover(b"http"):
                    return
                continue
            if not window.data:
                return
            found = _record(window, part.name, settings)
            if isinstance(found, Unreadable):
                yield found
            elif found is not None:
                yield document_of(found, part, settings)


def _skip_blank(window: Window) -> None:
    while window.data or window.more():
        window.drop(len(window.data) - len(window.data.lstrip(b"\r\n")))
        if window.data:
            return


def _record(window: Window, name: str, settings: ReadSettings) -> Record | Unreadable | None:
    """None for the block that describes the file, and where the damage of the packing says it all."""
    place, mark = window.place, window.mark
    while b"\n" not in window.data and len(window.data) < _MOST_LINE and window.more():
        pass
    if window.broken:
        return None
    line = _LINE.match(window.data)
    if line is None:
        shown = bytes(window.data[:60].split(b"\n")[0])
        _find_next(window)
        return Unreadable(name, place, "bad_record", f"no ARC header: {shown!r}")
    url, _, date, mime, length = (part.decode("latin-1") for part in line.groups())
    window.drop(line.end())
    wanted = int(length)
    if url.startswith("filedesc:") or wanted > settings.max_record_bytes:
        window.drop(wanted)
        if url.startswith("filedesc:"):
            return None
        detail = f"{wanted:,} bytes, at most {settings.max_record_bytes:,}"
        return Unreadable(name, place, "record_too_long", detail)
    whole = window.holds(wanted)
    if window.broken:
        return None
    data = bytes(window.data[:wanted])
    window.drop(len(data))
    if not whole:
        return Unreadable(name, place, "truncated", f"{len(data):,} of {wanted:,} bytes are there")
    fields = {"warc-target-uri": url, "warc-date": _iso(date), "content-type": "application/http; msgtype=response"}
    if not data.startswith(b"HTTP/"):
        fields["content-type"] = mime
    return Record("response", place, mark, fields, data)


def _iso(date: str) -> str:
    """20140216050221 as 2014-02-16T05:02:21Z."""
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}"
    return f"{day}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z" if len(date) >= 14 else day


def _find_next(window: Window) -> None:
    while window.data or window.more():
        found = _NEXT.search(window.data, 0)
        if found:
            window.drop(found.end())
            return
        if len(window.data) > _MOST_LINE:
            window.drop(len(window.data) - _MOST_LINE)
        if not window.more():
            if not window.broken:
                window.drop(len(window.data))
            return
