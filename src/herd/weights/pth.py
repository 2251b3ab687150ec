"""PyTorch's own files (`.pth`, `.pt`) of named tensors: read lazily and safely, written tensor by tensor.

A file is a zip of stored (never compressed) records: `data.pkl`, which says name, dtype and shape of each tensor, and
one record of raw bytes for each storage. Reading maps the file and unpickles with torch's `weights_only`, which builds
tensors and plain containers and calls nothing else. Writing is our own because `torch.save` wants all tensors at once.
Not here: files of torch before 1.6, which are no zip, and pickles of anything but a flat table of tensors.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herd.errors import ArtifactError, FormatError
from herd.weights.staging import Staging
from herd.weights.tensors import SYNC_BYTES, Entry, Meter, printable, raw_bytes, sync

_ROOT = "archive"
_ALIGNMENT = 64  # of each storage, as torch does it: a mapped tensor then starts on a cache line
_LARGEST_PICKLE = 2**26  # bytes; 405B's takes 200 kB
_ZIP64 = 2**30  # records from here on get 64-bit sizes
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20  # bytes
_OLD_STORAGES = {
    torch.bfloat16: torch.BFloat16Storage,
    torch.float16: torch.HalfStorage,
    torch.float32: torch.FloatStorage,
    torch.float64: torch.DoubleStorage,
    torch.int64: torch.LongStorage,
    torch.uint8: torch.ByteStorage,
}


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, views of its memory map: nothing is read before it is used.

    FormatError for files that are cut short, hold code, or whose records and tensors contradict each other.
    """
    sizes = _record_sizes(path)
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            "the file holds more than tensors, and nothing of it was run",
            where=str(path),
            mend="do not load it with another program either; get the weights from a source you trust",
        ) from error
    except Exception as error:  # a table made to harm can raise anything
        raise FormatError(f"not a file of tensors: {_first_line(error)}", where=str(path)) from error
    flat = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )
    if not flat:
        raise FormatError("the file is no table of named tensors", where=str(path))
    _check_storages(content, sizes, path)
    return dict(content)


def _record_sizes(path: Path) -> Counter[int]:
    """Sizes of the storages, after the checks that need no unpickling: all stored, all inside the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except FileNotFoundError as error:
        raise ArtifactError("a file of weights is missing", where=str(path)) from error
    except PermissionError as error:
        raise ArtifactError("a file of weights cannot be read", where=str(path), mend="ask for its rights") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(
            f"not a whole file of tensors ({os.path.getsize(path)} bytes): {error}",
            where=str(path),
            mend="it was cut short (copy or download it again), or torch before 1.6 wrote it (load and save it again)",
        ) from error
    length = os.path.getsize(path)
    for record in records:
        inside = 0 <= record.header_offset <= record.header_offset + record.file_size <= length
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size or not inside:
            raise FormatError(f"record {record.filename} is compressed or lies outside the file", where=str(path))
        if record.filename.endswith("data.pkl") and record.file_size > _LARGEST_PICKLE:
            raise FormatError(f"its table of tensors has {record.file_size} bytes", where=str(path))
    return Counter(record.file_size for record in records if "/data/" in record.filename)


def _check_storages(content: Mapping[str, Tensor], sizes: Counter[int], path: Path) -> None:
    """Every tensor is contiguous and has a storage of exactly the size of a record of its own."""
    storages = {}
    for name, tensor in content.items():
        plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        if not plain or not tensor.is_contiguous():
            raise FormatError(
                f"tensor {printable(name)} is stored with gaps", where=str(path), mend="save it dense and contiguous"
            )
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    used = Counter(storages.values())
    used.pop(0, None)
    if used - sizes:
        raise FormatError("its table of tensors does not agree with the bytes that are there", where=str(path))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def write_pth(
    path: Path,
    entries: Sequence[Entry],
    *,
    aliases: Mapping[str, str] | None = None,
    staging: Staging | None = None,
    meter: Meter | None = None,
) -> None:
    """Write a file that `torch.load(mmap=True)` reads, one tensor in memory at a time.

    `aliases` are further names of tensors in it (tied embeddings). With `staging` an earlier run's records are kept:
    at each mark the zip is whole, and its directory is kept aside because going on overwrites it.
    """
    kept = staging.done(path.name) if staging else None
    written = _take_up(path, kept) if kept else 0
    archive = zipfile.ZipFile(path, "a" if kept else "w")
    try:
        if not kept:
            _put(archive, "data.pkl", memoryview(_table(entries, aliases or {})))
            _put(archive, "byteorder", memoryview(b"little"))
        unsynced = 0
        for number, entry in enumerate(entries):
            if number >= written:
                _put(archive, f"data/{number}", raw_bytes(entry))
                unsynced += entry.n_bytes
            if meter:
                meter.add(entry.n_bytes)
            if staging and unsynced >= SYNC_BYTES:
                archive.close()
                _mark(staging, path, number + 1)
                archive, unsynced = zipfile.ZipFile(path, "a"), 0
        if "archive/version" not in archive.NameToInfo:
            _put(archive, "version", memoryview(b"3\n"))
    finally:
        archive.close()
    if staging:
        _mark(staging, path, len(entries))
    else:
        with open(path, "r+b") as handle:
            sync(handle)


def _put(archive: zipfile.ZipFile, name: str, data: memoryview) -> None:
    """Append a record whose bytes start on a multiple of 64."""
    record = zipfile.ZipInfo(f"{_ROOT}/{name}")
    wide = len(data) >= _ZIP64
    assert archive.fp is not None
    start = archive.start_dir + _LOCAL_HEADER + len(record.filename) + (_ZIP64_EXTRA if wide else 0) + 4
    gap = -start % _ALIGNMENT
    record.extra = struct.pack("<2sH", b"FB", gap) + b"Z" * gap
    record.file_size = len(data)
    with archive.open(record, "w", force_zip64=wide) as out:
        out.write(data)


def _mark(staging: Staging, path: Path, written: int) -> None:
    """Keep the zip's directory, with which the file is whole up to here."""
    with open(path, "r+b") as handle:
        sync(handle)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    with open(path, "rb") as handle:
        handle.seek(start)
        directory = handle.read()
    staging.mark(path.name, {"written": written, "start": start, "directory": directory.hex()})


def _take_up(path: Path, kept: Mapping[str, Any]) -> int:
    with open(path, "r+b") as handle:
        handle.truncate(kept["start"])
        handle.seek(kept["start"])
        handle.write(bytes.fromhex(kept["directory"]))
    return int(kept["written"])


@dataclass(frozen=True)
class _Storage:
    key: int
    dtype: torch.dtype
    count: int

    def persistent_id(self) -> tuple[str, Any, str, str, int]:
        if self.dtype in _OLD_STORAGES:
            return "storage", _OLD_STORAGES[self.dtype], str(self.key), "cpu", self.count
        return "storage", torch.UntypedStorage, str(self.key), "cpu", self.count * self.dtype.itemsize


@dataclass(frozen=True)
class _Tensor:
    """Pickles as a tensor over a storage that stands in another record."""

    storage: _Storage
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        stride = tuple(torch.empty(self.shape, device="meta").stride())
        hooks: OrderedDict[str, Any] = OrderedDict()
        given = (self.storage, 0, self.shape, stride, False, hooks)
        if self.storage.dtype in _OLD_STORAGES:
            return torch._utils._rebuild_tensor_v2, given
        return torch._utils._rebuild_tensor_v3, (*given, self.storage.dtype)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.persistent_id() if isinstance(value, _Storage) else None


def _table(entries: Sequence[Entry], aliases: Mapping[str, str]) -> bytes:
    """data.pkl: name -> tensor, in the order given."""
    tensors = {}
    for number, entry in enumerate(entries):
        tensors[entry.name] = _Tensor(_Storage(number, entry.dtype, entry.count), entry.shape)
    tensors |= {name: tensors[of] for name, of in aliases.items()}
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(tensors)
    return out.getvalue()
