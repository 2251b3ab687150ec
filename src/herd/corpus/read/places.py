"""Where documents lie: files on a disk, and behind addresses (S3, the Hub, a web server) in the same terms."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from herd.corpus.records import Unreadable
from herd.corpus.remote import Remote, is_remote
from herd.errors import InputError

_BLOCK = 1 << 22  # bytes asked for at once over a network


@dataclass(frozen=True, slots=True)
class File:
    """`path` opens it from anywhere, `name` is how ids and verdicts call it, `stamp` changes when its content does."""

    path: str
    name: str
    size: int
    stamp: str


def found(source: str | Path, mend: str) -> tuple[list[File], list[Unreadable]]:
    """All files under a place in the order of their names, and what could not be entered or is no file.

    Raises InputError when there is no such place or nothing in it.
    """
    return _remote_files(str(source), mend) if is_remote(str(source)) else _local_files(Path(source), mend)


def opened(path: str) -> IO[bytes]:
    """A file of either kind, which can be sought in."""
    if not is_remote(path):
        return open(path, "rb")
    folder, _, name = path.rpartition("/")
    return io.BufferedReader(_Ranges(Remote(folder), name), _BLOCK)


def _local_files(root: Path, mend: str) -> tuple[list[File], list[Unreadable]]:
    if root.is_file():
        return [_file(root, root.name)], []
    if not root.is_dir():
        raise InputError("there is no such folder or file of documents", where=str(root), mend=mend)
    closed: list[Unreadable] = []

    def refused(error: OSError) -> None:
        closed.append(Unreadable(str(error.filename or root), "", "no_permission", error.strerror or ""))

    paths = sorted(Path(folder, name) for folder, _, names in os.walk(root, onerror=refused) for name in names)
    if not paths and closed:
        raise InputError(
            f"the folder of documents cannot be read: {closed[0].detail.lower()}",
            where=closed[0].file,
            mend="change its rights, or hand in another folder",
        )
    if not paths:
        raise InputError("the folder of documents is empty", where=str(root), mend=mend)
    return [_file(path, path.relative_to(root).as_posix()) for path in paths], closed


def _file(path: Path, name: str) -> File:
    """A broken link or a device has size -1."""
    if not path.is_file():
        return File(str(path), name, -1, "")
    stat = path.stat()
    return File(os.path.abspath(path), name, stat.st_size, str(stat.st_mtime_ns))


def _remote_files(url: str, mend: str) -> tuple[list[File], list[Unreadable]]:
    files = [File(*row) for row in Remote(url).files()]
    if not files:
        raise InputError("there is no file of documents here", where=url, mend=mend)
    return files, []


class _Ranges(io.RawIOBase):
    """A remote file as a stream, range by range; each range is tried again as `Remote` does."""

    def __init__(self, place: Remote, name: str) -> None:
        self._place, self._name, self._at = place, name, 0
        self._size = place.size(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, target: Any) -> int:
        end = min(self._size, self._at + len(target))
        if end <= self._at:
            return 0
        data = self._place.range(self._name, self._at, end)
        target[: len(data)] = data
        self._at += len(data)
        return len(data)
