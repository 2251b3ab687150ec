"""A cache on disk for blocks of remote files: bounded, verified, shared by the processes of a machine.

A block is a file `<key>/<number>` of exactly its bytes. It is written aside and renamed, so a kill leaves whole blocks
or none, and what is there is found again. Its checksum is compared before it is first used by a process, so a block
that went bad on disk is fetched again. When the cache is over its size, the blocks go that were used longest ago.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from herd.errors import ArtifactError, SettingError
from herd.files import atomic_file, storage_errors

Bytes = NDArray[np.uint8]
Key = tuple[str, int]

_MAPPED = 256  # blocks that a process keeps mapped
_SPARE = 0.9  # how full the cache is after it was swept


@dataclass
class BlockCache:
    """Blocks under `folder`, of `limit` bytes together at most (and one block more for each process that writes)."""

    folder: Path
    limit: int
    _mapped: OrderedDict[Key, Bytes] = field(default_factory=OrderedDict, repr=False)
    _under_way: dict[Key, threading.Lock] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _size: int = -1

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise SettingError(f"a cache of {self.limit} bytes holds nothing", mend="give it a few GB")

    def block(self, key: Key, length: int, crc: int, fetch: Callable[[], bytes]) -> Bytes:
        """The bytes of a block; `fetch` brings them where they are not here.

        Raises ArtifactError when what was fetched twice has another checksum, StorageError when the disk is full.
        """
        with self._lock:
            if key in self._mapped:
                self._mapped.move_to_end(key)
                return self._mapped[key]
            mine = self._under_way.setdefault(key, threading.Lock())
        with mine:  # one thread of this process fetches it, the others wait for that
            found = self._stored(key, length, crc)
            if found is None:
                self._write(key, _verified(fetch, crc))
                found = self._stored(key, length, crc)
            if found is None:
                raise ArtifactError("a block cannot be read back from the cache", where=str(self._path(key)))
            self._remember(key, found)
            return found

    def has(self, key: Key) -> bool:
        return key in self._mapped or self._path(key).exists()

    def _path(self, key: Key) -> Path:
        return self.folder / key[0] / f"{key[1]:08d}"

    def _stored(self, key: Key, length: int, crc: int) -> Bytes | None:
        """The block as it lies on disk, None where it is not there or damaged."""
        path = self._path(key)
        try:
            if path.stat().st_size != length:
                return None
            data: Bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError):  # not there, or another process swept it away just now
            return None
        if zlib.crc32(data.data) != crc:
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return data

    def _write(self, key: Key, data: bytes) -> None:
        path = self._path(key)
        with storage_errors(path), atomic_file(path) as handle:
            handle.write(data)
        with self._lock:
            self._size = self._size + len(data) if self._size >= 0 else sum(size for _, size, _ in self._listed())
            over = self._size > self.limit
        if over:
            self._sweep(keep=path)

    def _remember(self, key: Key, data: Bytes) -> None:
        with self._lock:
            self._mapped[key] = data
            self._under_way.pop(key, None)
            while len(self._mapped) > _MAPPED:
                self._mapped.popitem(last=False)

    def _listed(self) -> list[tuple[float, int, Path]]:
        """When each block was used, its size, its path."""
        found = []
        for path in self.folder.glob("*/[0-9]*"):
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return found

    def _sweep(self, keep: Path) -> None:
        """Remove what was used longest ago. What is mapped stays readable, without a name, until it is let go."""
        listed = sorted(self._listed())
        size = sum(one for _, one, _ in listed)  # other processes write here too
        for _, one, path in listed:
            if size <= self.limit * _SPARE:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                size -= one
        with self._lock:
            self._size = size


def _verified(fetch: Callable[[], bytes], crc: int) -> bytes:
    for _ in range(2):  # a line may damage what it carries; the same damage twice is the file's
        data = fetch()
        if zlib.crc32(data) == crc:
            return data
    raise ArtifactError("the bytes that came have another checksum than those that were written")
