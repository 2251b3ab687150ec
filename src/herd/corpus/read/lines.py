"""Lines of a file with their numbers and byte offsets; a line over the limit is passed over without being held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from herd.corpus.records import Unreadable
from herd.corpus.settings import ReadSettings


class TooLong(bytes):
    """Stands for a line that was too long to hold: its length in digits."""


def numbered(handle: IO[bytes], limit: int, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, line) from where the handle stands, at `offset`; see TooLong."""
    number = 0
    while line := handle.readline(limit + 1):
        number += 1
        start, offset = offset, offset + len(line)
        if len(line) <= limit:
            yield number, start, line
            continue
        while not line.endswith(b"\n") and (line := handle.readline(limit)):
            offset += len(line)
        yield number, start, TooLong(str(offset - start).encode())


def too_long(name: str, place: str, line: bytes, settings: ReadSettings) -> Unreadable:
    return Unreadable(name, place, "line_too_long", f"{int(line):,} bytes, at most {settings.max_line_bytes:,}")
