"""Ranges of files that lie elsewhere: object storage, the Hub, a web server; by fsspec, which is imported here only.

    place = Remote("s3://bucket/shards/web-000")
    place.read("shards.json")    place.range("tokens.bin", 0, 1 << 22)

Whatever a network does for a moment is tried again; what stays is an ArtifactError with the address. Every answer has
the length that was asked for. Whether its bytes are right is the reader's to check (streams.py has their checksums).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from herd.errors import ArtifactError, HerdError, MissingExtraError, SettingError

_wait = time.sleep
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further try; herd's choice
_PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
}
_FINAL = {400, 401, 403, 404, 410, 416}  # statuses that a second try does not change


def is_remote(place: str) -> bool:
    """Whether a place is an address, not a path: it begins with a protocol."""
    return bool(re.match(r"[a-z0-9+.-]+://", place))


@dataclass(frozen=True)
class Remote:
    """A folder at `url`. `options` go to fsspec's file system, e.g. an endpoint; secrets come from its own files."""

    url: str
    pauses: Sequence[float] = PAUSES
    options: dict[str, Any] = field(default_factory=dict)

    def within(self, name: str) -> Remote:
        """The folder `name` below this one; an address of its own stays."""
        return Remote(name if is_remote(name) else self.address(name), self.pauses, self.options)

    def address(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}".rstrip("/")

    def read(self, name: str) -> bytes:
        """A whole file."""
        return bytes(self._tried(name, lambda path: self._files.cat_file(path)))

    def range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file."""

        def ranged(path: str) -> Any:
            data = self._files.cat_file(path, start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"{len(data):,} bytes came where {end - start:,} were asked for, at {start:,}")
            return data

        return bytes(self._tried(name, ranged))

    def read_if_there(self, name: str) -> bytes | None:
        """A whole file, None where there is none (or none that we may see: some stores do not tell these apart)."""
        try:
            return self.read(name)
        except ArtifactError as error:
            if isinstance(error.__cause__, FileNotFoundError | PermissionError):
                return None
            raise

    def files(self) -> list[tuple[str, str, int, str]]:
        """(address, name below this folder, bytes, what changes with its content) of every file, by name.

        The address of one file is that file alone.
        """
        root = self.url.rstrip("/")

        def listed(path: str) -> Any:
            if self._files.isfile(path):
                return {path: self._files.info(path)}
            return self._files.find(path, detail=True)

        base = str(self._files._strip_protocol(root))
        rows = []
        for path, info in self._tried("", listed).items():
            name = str(path)[len(base) :].strip("/")
            stamp = next(
                (str(info[key]) for key in ("ETag", "etag", "sha256", "LastModified", "mtime") if key in info), ""
            )
            rows.append((f"{root}/{name}" if name else root, name or root.rpartition("/")[2], int(info["size"]), stamp))
        return sorted(rows, key=lambda row: row[1])

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self._tried(name, lambda path: self._files.size(path)))

    @cached_property
    def _files(self) -> Any:
        protocol = self.url.partition("://")[0]
        try:
            import fsspec  # type: ignore[import-untyped]

            return fsspec.filesystem(protocol, **self.options)
        except ImportError as error:
            raise MissingExtraError(_PACKAGES.get(protocol, "fsspec"), "remote") from error
        except ValueError as error:
            raise SettingError(f"'{protocol}://' is no protocol that is known: {error}", where=self.url) from error

    def _tried(self, name: str, ask: Callable[[str], Any]) -> Any:
        address = self.address(name)
        for pause in (*self.pauses, None):
            try:
                return ask(self._files._strip_protocol(address))
            except HerdError:
                raise
            except FileNotFoundError as error:
                raise ArtifactError(
                    f"there is no {name} here", where=address, mend="check the address; herd's shards have this file"
                ) from error
            except Exception as error:  # each backend has errors of its own
                if pause is None or isinstance(error, PermissionError) or getattr(error, "status", 0) in _FINAL:
                    raise ArtifactError(
                        f"cannot be read: {_said(error)}",
                        where=address,
                        mend="check the network and who may read there, then run the same command again: it goes on",
                    ) from error
                _wait(pause)
        raise AssertionError("the last try returns or raises")


def _said(error: Exception) -> str:
    """The error in a line, without what signed addresses hold behind their question mark."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1", text)[:300]
