"""Text files and HTML files: one document each, a large text in pieces."""

from __future__ import annotations

from collections.abc import Iterator

from herd.corpus.extract import extract
from herd.corpus.read.lines import TooLong, numbered, too_long
from herd.corpus.read.places import opened
from herd.corpus.read.unit import Part
from herd.corpus.records import Document, Unreadable
from herd.corpus.settings import ReadSettings

Read = Iterator[Document | Unreadable]
_SNIFFED = 8192


def _is_binary(head: bytes) -> bool:
    return b"\0" in head


def read_text(part: Part, settings: ReadSettings) -> Read:
    """A text file is one document; a large one is cut at line ends into pieces NAME#000000, NAME#000001, ..."""
    pieces = 0
    for piece in _pieces(part, settings):
        if isinstance(piece, Unreadable):
            yield piece
        elif piece.strip():
            whole = pieces == 0 and part.size <= settings.piece_characters
            yield Document(part.name if whole else f"{part.name}#{pieces:06d}", piece, "", part.source)
            pieces += 1


def _pieces(part: Part, settings: ReadSettings) -> Iterator[str | Unreadable]:
    held: list[str] = []
    size = 0
    with opened(part.path) as handle:
        if _is_binary(handle.read(_SNIFFED)):
            yield Unreadable(part.name, "", "binary", "zero bytes in the first 8 KB")
            return
        handle.seek(0)
        for number, offset, line in numbered(handle, settings.max_line_bytes):
            if isinstance(line, TooLong):
                yield too_long(part.name, f"line {number}, byte {offset}", line, settings)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"line {number}, byte {offset + error.start}"
                yield Unreadable(part.name, place, "not_utf8", str(error.reason))
                return
            held.append(text.replace("\r\n", "\n"))
            size += len(text)
            if size >= settings.piece_characters:
                yield "".join(held)
                held, size = [], 0
    yield "".join(held)


def read_html(part: Part, settings: ReadSettings) -> Read:
    """A page is a document: its main text, with its title in meta."""
    name = part.name
    if part.size > settings.max_line_bytes:
        detail = f"a page of {part.size:,} bytes, at most {settings.max_line_bytes:,}"
        yield Unreadable(name, "", "line_too_long", detail)
        return
    with opened(part.path) as handle:
        data = handle.read()
    if _is_binary(data[:_SNIFFED]) and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Unreadable(name, "", "binary", "zero bytes in the first 8 KB")
        return
    page = extract(data)
    if not page.text.strip():
        yield Unreadable(name, "", "no_text", "no text is left of the page")
        return
    yield Document(name, page.text, "", part.source, meta={"title": page.title} if page.title else {})
