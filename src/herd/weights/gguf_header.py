"""The header of a GGUF file: metadata and where each tensor lies, checked against the file's size. Imports no torch.

    header = read_header(path)
    header.metadata["llama.block_count"], header.tensors["token_embd.weight"].shape

A file is "GGUF", version, the counts of tensors and of metadata, the metadata (key, type, value), for each tensor its
name, shape, kind and offset, and the tensors' bytes, aligned. Source: ggml's docs/gguf.md. The `gguf` library reads
headers too; this reader believes no length before it has compared it with the bytes that are there, and it reads
the 400,000 strings of a Llama 3 vocabulary in a fraction of the time. Not here: big-endian files, version 1.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Type number of a metadata value -> its struct format (little-endian).
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 4  # ggml's limit
_MEND = "the file is damaged or cut short; copy or download it again"

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
# Kind of tensor -> (values a block, bytes a block); the kinds of other quantisations are asked of the gguf library.
_BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q8_0: (32, 34)}


@dataclass(frozen=True)
class Stored:
    """One tensor on disk. `shape` is in row-major order (GGUF itself lists it backwards)."""

    path: Path
    shape: tuple[int, ...]
    kind: int
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]


def read_header(path: Path) -> Header:
    """Metadata and tensors of one file. FormatError when anything reaches beyond the file's end."""
    try:
        with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, path).header()
    except FileNotFoundError as error:
        raise ArtifactError("a file of weights is missing", where=str(path), mend="copy the model again") from error
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise FormatError(f"not a GGUF file: {error}", where=str(path), mend=_MEND) from error


class _Cursor:
    """A place in the file that moves forward as values are taken."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def header(self) -> Header:
        if self.take(4) != MAGIC:
            raise FormatError("not a GGUF file: it does not begin with 'GGUF'", where=str(self.path))
        version = self.scalar("I")
        if version not in _VERSIONS:
            raise FormatError(f"GGUF version {version}; versions 2 and 3 are read", where=str(self.path))
        n_tensors, n_values = self.scalar("Q"), self.scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(n_values):  # a count that lies ends at the end of the file
            key = self.text()
            metadata[key] = self.value(self.scalar("I"))
        listed = [self._tensor_line() for _ in range(min(n_tensors, len(self.data)))]
        return Header(metadata, self._placed(listed, metadata))

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise FormatError(
                f"{size} bytes are announced at byte {self.at}, the file ends at {len(self.data)}",
                where=str(self.path),
                mend=_MEND,
            )
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def scalar(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise FormatError(f"unknown type {kind} of a metadata value at byte {self.at}", where=str(self.path))
        return self.scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise FormatError(f"an array of type {kind} at byte {self.at} is not read", where=str(self.path))
        form = _SCALARS[kind]
        return list(struct.unpack(f"<{count}{form}", self.take(count * struct.calcsize("<" + form))))

    def _tensor_line(self) -> tuple[str, tuple[int, ...], int, int]:
        name, n_dims = self.text(), self.scalar("I")
        if n_dims > _MAX_DIMS:
            raise FormatError(f"tensor {name} claims {n_dims} dimensions", where=str(self.path), mend=_MEND)
        sizes = tuple(self.scalar("Q") for _ in range(n_dims))
        return name, sizes[::-1], self.scalar("I"), self.scalar("Q")

    def _placed(self, listed: list[tuple[str, tuple[int, ...], int, int]], metadata: Mapping[str, Any]) -> Any:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise FormatError(f"general.alignment {alignment!r} is no power of two", where=str(self.path), mend=_MEND)
        start = -(-self.at // alignment) * alignment
        placed: dict[str, Stored] = {}
        for name, shape, kind, offset in listed:
            n_bytes = stored_bytes(name, shape, kind, self.path)
            if name in placed:
                raise FormatError(f"tensor {name} is listed twice", where=str(self.path), mend=_MEND)
            if offset % alignment or start + offset + n_bytes > len(self.data):
                raise FormatError(
                    f"tensor {name} should lie at bytes {start + offset} to {start + offset + n_bytes}, "
                    f"the file has {len(self.data)}",
                    where=str(self.path),
                    mend=_MEND,
                )
            placed[name] = Stored(self.path, shape, kind, start + offset, n_bytes)
        return placed


def stored_bytes(name: str, shape: tuple[int, ...], kind: int, path: Path) -> int:
    """Bytes of a tensor of this shape and kind; FormatError when its rows do not fill whole blocks."""
    values, size = block_of(kind, path)
    count = 1
    for length in shape:
        count *= length
    if shape and shape[-1] % values:
        raise FormatError(f"rows of {shape[-1]} of tensor {name} do not fill blocks of {values}", where=str(path))
    return count // values * size


def block_of(kind: int, path: Path) -> tuple[int, int]:
    """(values, bytes) of one block of a kind of tensor."""
    if kind in _BLOCKS:
        return _BLOCKS[kind]
    from herd.weights.gguf_library import library

    known = {int(number): sizes for number, sizes in library().GGML_QUANT_SIZES.items()}
    if kind not in known:
        raise FormatError(f"tensors of kind {kind} are unknown", where=str(path), mend="pip install -U gguf")
    values, size = known[kind]
    return int(values), int(size)


def kind_name(kind: int) -> str:
    """ggml's name of a quantised kind, in small letters."""
    if kind == Q8_0:
        return "q8_0"
    from herd.weights.gguf_library import library

    return str(library().GGMLQuantizationType(kind).name).lower()
