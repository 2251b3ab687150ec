"""Files that are whole or not there: atomic writes, JSON lines, hashes. Every room writes through these.

A full disk becomes a `StorageError` and leaves what stood before untouched.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from herd.errors import ArtifactError, FormatError, StorageError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' and its kin into a StorageError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageError(
                f"cannot write: {error.strerror}",
                where=str(path),
                mend="make room on that disk and run the same command again; it goes on where it stopped",
            ) from error
        raise


@contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file beside `path` for writing; it takes `path`'s place, synced, only if the block ends well.

    Text is UTF-8; half a surrogate pair (in file names that are not UTF-8, in foreign JSON) is written as `\\udc80`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with storage_errors(path):
            encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
            with open(aside, mode, encoding=encoding, errors=errors) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; it replaces `path` only if the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with storage_errors(path):
            aside.mkdir()
            yield aside
            replace_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Put folder `new` at `path`. What stood there is moved away first and removed last."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder that may be there already; a place that cannot be written is a StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make this folder: {error.strerror}", where=str(path), mend="name another with --out"
        ) from error


def write_text(path: Path, text: str) -> None:
    with atomic_file(path, "w") as handle:
        handle.write(text)


def write_json(path: Path, value: object) -> None:
    """Indented, UTF-8, keys in the order given, one newline at the end."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON artifact; missing or malformed files are named in the error."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows begins files with a mark
    except FileNotFoundError as error:
        raise ArtifactError("a file that should be there is missing", where=str(path)) from error
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or numbers and brackets beyond Python's limits
        raise FormatError(f"not valid JSON: {error}", where=str(path)) from error


def write_jsonl(path: Path, rows: Iterable[object]) -> int:
    """Write rows as JSON lines (gzip when the name ends in .gz); returns how many."""
    count = 0
    with atomic_file(path) as handle:
        zipped = path.suffix == ".gz"
        packed = gzip.GzipFile(fileobj=handle, mode="wb", compresslevel=5, filename="", mtime=0) if zipped else None
        for row in rows:
            (packed or handle).write(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
            count += 1
        if packed:
            packed.close()
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """Read JSON lines (or .gz); a broken line is a FormatError with its number."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise FormatError(f"line {number} is not JSON: {error}", where=str(path)) from error
    except FileNotFoundError as error:
        raise ArtifactError("a file that should be there is missing", where=str(path)) from error
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise FormatError(f"cut short, damaged or not UTF-8: {error}", where=str(path)) from error
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error


def sha256_of(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
