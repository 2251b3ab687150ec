"""Packed files, member by member: gzip and zstd as archives write them, and plain bytes in the same shape.

A web archive packs each record as a member of its own, so a damaged one costs that record and no other: `recover`
looks for the next member that unpacks to what a record begins with. The same search finds the first record of a byte
range, which is how a large archive is read by several workers. (An archive that stands inside a record of another,
stored and not packed, would be found by it too; that needs a range that begins within such a record.)
"""

from __future__ import annotations

import io
import struct
import zlib
from importlib import import_module
from typing import IO, Any

from herd.errors import MissingExtraError

PIECE = 1 << 18
_ZSTD_PIECE = 1 << 11  # packed bytes; 4 of them can stand for 128 KB
GZIP, ZSTD, PLAIN = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b""
_DICTIONARY = b"\x5d\x2a\x4d\x18"  # IIPC's WARC/zstd: a skippable frame with the dictionary opens the file
_PLAIN_HEADS = (b"WARC", b"file")  # of a WARC, of an ARC
_SKIPPABLE = 0x184D2A50


class BrokenPacking(Exception):
    """A member that cannot be unpacked: `reason` is a reason of `Unreadable`, `offset` where the member begins."""

    def __init__(self, reason: str, offset: int, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.offset, self.detail = reason, offset, detail


def magic_of(handle: IO[bytes], name: str) -> bytes:
    """How the file is packed, by its first bytes whatever its name says; by its name where they say nothing."""
    handle.seek(0)
    head = handle.read(4)
    handle.seek(0)
    if head.startswith(GZIP):
        return GZIP
    if head in (ZSTD, _DICTIONARY):
        return ZSTD
    if head in _PLAIN_HEADS:
        return PLAIN
    return GZIP if name.lower().endswith(".gz") else ZSTD if name.lower().endswith(".zst") else PLAIN


class Packed:
    """Unpacked bytes of a file, or of the members that begin in [start, end), piece by piece.

    `offset` is where the current member begins, `fresh` whether the last piece was its first. A plain file is one.
    """

    def __init__(self, handle: IO[bytes], magic: bytes, start: int = 0, end: int = 0) -> None:
        self._handle, self._magic, self._end = handle, magic, end
        self._dictionary = _dictionary(handle) if magic == ZSTD else None
        self._raw = b""  # read and not yet unpacked
        self._next = start  # file offset of _raw[0]
        self._member: Any = None
        self.offset, self.fresh, self.plain = start, False, magic == PLAIN
        handle.seek(start)

    def piece(self) -> bytes:
        """The next bytes, b"" at the end; raises BrokenPacking, after which `recover` or nothing can follow."""
        if self.plain:
            return self._as_it_is()
        self.fresh = False
        while True:
            if self._member is None and not self._open():
                return b""
            raw, self._raw = self._raw or self._handle.read(PIECE), b""
            if self._magic == ZSTD:  # its unpacker cannot be told how much to give at most
                raw, self._raw = raw[:_ZSTD_PIECE], raw[_ZSTD_PIECE:]
            if not raw:
                self._member = None
                raise BrokenPacking("truncated", self.offset, f"the {self._name} stream ends too early")
            try:
                data = self._unpack(raw)
            except Exception as error:  # zlib.error or zstandard's, which may not be installed
                self._member = None
                raise BrokenPacking(f"bad_{self._name}", self.offset, str(error)) from error
            if data:
                return data

    def _unpack(self, raw: bytes) -> bytes:
        """At most PIECE bytes out of `raw`; what is left of it goes back."""
        if self._magic == GZIP:
            data: bytes = self._member.decompress(raw, PIECE)
            rest = self._member.unconsumed_tail or self._member.unused_data
        else:
            data, rest = self._member.decompress(raw), self._member.unused_data
        self._next += len(raw) - len(rest)
        self._raw = rest + self._raw
        if self._member.eof:
            self._member = None
        return data

    def recover(self, head: bytes, here: bool = False) -> bool:
        """Go to the next member that unpacks to `head`, behind this one's beginning or `here`; False: none is left."""
        position = self.offset + (not here)
        self._member, window = None, b""
        self._handle.seek(position)
        while piece := self._handle.read(PIECE):
            window += piece
            at = window.find(self._magic)
            while at >= 0:
                if self._end and position + at >= self._end:
                    return False
                if len(window) - at < PIECE and len(piece) == PIECE:
                    break  # see more of it first
                if self._begins(window[at : at + PIECE], head):
                    self._raw, self._next = b"", position + at
                    self._handle.seek(self._next)
                    return True
                at = window.find(self._magic, at + 1)
            cut = at if at >= 0 else max(0, len(window) - len(self._magic))
            position, window = position + cut, window[cut:]
        return False

    @property
    def _name(self) -> str:
        return "gzip" if self._magic == GZIP else "zstd"

    def _as_it_is(self) -> bytes:
        want = PIECE if not self._end else min(PIECE, self._end - self._next)
        data = self._handle.read(max(0, want))
        self.fresh = self._next == self.offset
        self._next += len(data)
        return data

    def _open(self) -> bool:
        """Begin the next member; False at the end of the file or of the range."""
        if len(self._raw) < 8:
            self._raw += self._handle.read(PIECE)
        if self._magic == GZIP:  # zeros may pad the file behind its last member
            padding = len(self._raw) - len(self._raw.lstrip(b"\0"))
            self._raw, self._next = self._raw[padding:], self._next + padding
        while self._magic == ZSTD and len(self._raw) >= 8 and _is_skippable(self._raw):
            self._skip(8 + struct.unpack("<I", self._raw[4:8])[0])
        if not self._raw or (self._end and self._next >= self._end):
            return False
        self.offset, self.fresh, self._member = self._next, True, self._decompressor()
        return True

    def _skip(self, size: int) -> None:
        self._next += size
        self._handle.seek(self._next)
        self._raw = self._handle.read(PIECE)

    def _begins(self, packed: bytes, head: bytes) -> bool:
        try:
            return bool(self._decompressor().decompress(packed[:_ZSTD_PIECE])[: len(head)] == head)
        except Exception:  # not a member: the magic bytes stood inside other data
            return False

    def _decompressor(self) -> Any:
        return (
            zlib.decompressobj(31)
            if self._magic == GZIP
            else _zstandard().ZstdDecompressor(dict_data=self._dictionary).decompressobj()
        )


class Unpacked(io.RawIOBase):
    """The whole of a packed file as a stream; wrap it in a BufferedReader. Raises BrokenPacking."""

    def __init__(self, packed: Packed) -> None:
        self._packed, self._held = packed, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._held:
            self._held = memoryview(self._packed.piece())
        count = min(len(target), len(self._held))
        target[:count], self._held = self._held[:count], self._held[count:]
        return count


def _is_skippable(raw: bytes) -> bool:
    return int(struct.unpack("<I", raw[:4])[0]) & 0xFFFFFFF0 == _SKIPPABLE


def _dictionary(handle: IO[bytes]) -> Any:
    handle.seek(0)
    head = handle.read(8)
    if head[:4] != _DICTIONARY:
        return None
    data = handle.read(struct.unpack("<I", head[4:])[0])
    if data.startswith(ZSTD):
        data = _zstandard().ZstdDecompressor().decompressobj().decompress(data)
    return _zstandard().ZstdCompressionDict(data)


def _zstandard() -> Any:
    try:
        return import_module("zstandard")
    except ImportError as error:
        raise MissingExtraError("zstandard", "corpus") from error
