"""Safetensors files, written tensor by tensor: one tensor in memory at a time (`hf_files.py` reads them).

A file is eight bytes of header length, a JSON header (name -> dtype, shape, offsets), and the raw bytes. We write it
ourselves because the library wants a whole shard in memory first, and a shard of 405B is 5 GB.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from herd.errors import FormatError
from herd.files import write_json
from herd.progress import Progress, Silent
from herd.weights.staging import Staging

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.uint8: "U8",
}
DTYPES = {name: dtype for dtype, name in _NAMES.items()}
SYNC_BYTES = 2**30  # what a kill can cost: so much is written between two marks


@dataclass(frozen=True)
class Packed:
    """The quantised form of a tensor in a file."""

    kind: str  # ggml's name for it, e.g. "q4_k"
    n_bytes: int
    q8_0: Callable[[], Tensor] | None = None  # the blocks, where these are Q8_0 and can be used as they are: `q8_0.py`


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: its form now, its values when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Callable[[], Tensor]
    place: str = ""  # the file it was found in, for messages
    packed: Packed | None = None  # what the values are computed from, where the file holds something smaller

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.count * self.dtype.itemsize


def write_tensors(
    folder: Path,
    entries: Iterable[Entry],
    max_shard_bytes: int,
    *,
    staging: Staging | None = None,
    progress: Progress | None = None,
) -> int:
    """Write one file or numbered shards with their index into `folder`; returns the bytes of all tensors.

    Shards are filled in the order given; a tensor larger than `max_shard_bytes` gets a shard of its own. With a
    `staging` folder what an earlier run left there is taken up, to the tensor.
    """
    shards = list(_shards(entries, max_shard_bytes))
    total = sum(entry.n_bytes for shard in shards for entry in shard)
    meter = Meter(total, progress or Silent())
    if len(shards) == 1:
        _write_file(folder / SINGLE, shards[0], staging, meter)
        return total
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / name, shard, staging, meter)
        weight_map |= {entry.name: name for entry in shard}
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return total


def _shards(entries: Iterable[Entry], max_shard_bytes: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and size + entry.n_bytes > max_shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += entry.n_bytes
    yield shard


class Meter:
    """Counts the bytes written and tells a Progress, in GB."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def add(self, n_bytes: int) -> None:
        self._done += n_bytes
        self._progress.update(self._done / 1e9, self._total / 1e9, "GB")


def _write_file(path: Path, entries: list[Entry], staging: Staging | None = None, meter: Meter | None = None) -> None:
    head = header(entries)
    first = (staging and staging.done(path.name)) or 0  # tensors that an earlier run left on the disk
    start = len(head) + sum(entry.n_bytes for entry in entries[:first])
    with open(path, "r+b" if first else "wb") as handle:
        handle.truncate(start if first else 0)
        handle.write(head)
        handle.seek(start)
        unsynced = 0
        for number, entry in enumerate(entries):
            if number >= first:
                handle.write(raw_bytes(entry))
                unsynced += entry.n_bytes
            if meter:
                meter.add(entry.n_bytes)
            if staging and unsynced >= SYNC_BYTES:
                sync(handle)
                staging.mark(path.name, number + 1)
                unsynced = 0
        sync(handle)
    if staging:
        staging.mark(path.name, len(entries))


def header(entries: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """What a safetensors file begins with: the length of the JSON, and the JSON, padded with blanks."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for entry in entries:
        offsets = [offset, offset + entry.n_bytes]
        content[entry.name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors start aligned
    return len(text).to_bytes(8, "little") + text


def raw_bytes(entry: Entry) -> memoryview:
    """The values of an entry as its dtype, little-endian, in C order."""
    tensor = entry.values().detach().to("cpu", entry.dtype).contiguous()
    assert tensor.shape == entry.shape, entry.name
    data: memoryview = tensor.flatten().view(torch.uint8).numpy().data
    return data


def sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def printable(name: str) -> str:
    """A stranger's name for a message: no line breaks, no codes that steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:200])


def refuse_escape(path: Path, folder: Path) -> None:
    """A link in a stranger's folder may not lead out of it; the Hub's cache, whose links lead to `blobs`, may."""
    home = folder.resolve()
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in allowed):
        raise FormatError(
            f"a link leads out of the folder, to {real}",
            where=str(path),
            mend="if you trust it, put the file itself here instead of the link",
        )
