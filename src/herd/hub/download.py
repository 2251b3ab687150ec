"""One file from the hub: it goes on where it was cut, even by `kill -9`, and is not there before it is verified.

huggingface_hub restarts a file whose process died; over a slow line a shard of 5 GB then never arrives. So the file is
asked for by ranges into a `.part` of ours, with the library's request, retries and redirects. Each new try asks the hub
anew where the file lies: the address of the large-file store is signed for an hour or so, and a slow line needs longer.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from herd.errors import HubError, StorageError
from herd.files import storage_errors
from herd.hub.client import ENDPOINT, Hub
from herd.hub.listing import Listing, RemoteFile, digest_of
from herd.progress import Progress, Silent

_CONNECTIONS = 4
_SPARE = 64_000_000  # bytes that stay free on the disk
_TRIES = 4  # in a row that bring not one byte
_WAIT = 1.0  # seconds before the second of them, doubled each time
# The library asks for 50 GB at most in one request; Meta's shards of the 405B have 51 and 101: they come in stretches.
_PLAIN, _STRETCH = 50_000_000_000, 20_000_000_000


class Meter:
    """Bytes of several downloads in one progress; `stop` ends them all at their next block."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            self.progress.update(self.done / 1e6, self.total / 1e6, "MB")


class Stopped(Exception):
    """Another download failed, or the user pressed Ctrl-C."""


class _Surplus(Exception):
    """More came than the listing promises."""


class _Counted:
    """The part file as the library writes to it: every block is counted, and none goes beyond `limit`."""

    def __init__(self, handle: IO[bytes], meter: Meter, limit: int) -> None:
        self._handle, self._meter, self._limit = handle, meter, limit

    def write(self, block: bytes) -> int:
        if self._meter.stop.is_set():
            raise Stopped
        if self._handle.tell() + len(block) > self._limit:  # a stream without end would fill the disk
            raise _Surplus
        self._meter.add(len(block))
        return self._handle.write(block)

    def tell(self) -> int:
        return self._handle.tell()

    def seek(self, place: int) -> int:
        self._meter.add(place - self._handle.tell())  # the server began the file anew
        return self._handle.seek(place)

    def truncate(self) -> int:
        return self._handle.truncate()


def fetch(
    hub: Hub,
    listing: Listing,
    file: RemoteFile,
    place: Path,
    progress: Progress = Silent(),  # noqa: B008
) -> None:
    """Bring `file` to `place`. HubError when what arrives is not what the listing says; StorageError on a full disk."""
    fetch_all(hub, listing, [(file, place)], progress)


def fetch_all(
    hub: Hub,
    listing: Listing,
    wanted: Sequence[tuple[RemoteFile, Path]],
    progress: Progress = Silent(),  # noqa: B008
) -> None:
    """Bring several files of a repository, a few at a time. What is there already and whole is not asked for again."""
    meter = Meter(sum(file.size for file, _ in wanted), progress)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        jobs = [pool.submit(_fetch, hub, listing, file, place, meter) for file, place in wanted]
        try:
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            errors = [job.exception() for job in done if job.exception()]
        finally:
            meter.stop.set()
            for job in jobs:
                job.cancel()
    first = next((error for error in errors if not isinstance(error, Stopped)), None)
    if first:
        raise first


def check_room(folder: Path, missing: int) -> None:
    """StorageError at once where `missing` bytes cannot fit, instead of after hours."""
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(standing).free
    if missing > 0 and missing + _SPARE > free:
        raise StorageError(
            f"{missing / 1e9:.2f} GB are to come and {free / 1e9:.2f} GB are free",
            where=str(folder.parent),
            mend="make room on that disk, or name another with --out; what has arrived is kept",
        )


def _fetch(hub: Hub, listing: Listing, file: RemoteFile, place: Path, meter: Meter) -> None:
    if meter.stop.is_set():
        raise Stopped
    if file.matches(place):
        meter.add(file.size)
        return
    part = part_of(place, file)
    with storage_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        with open(part, "r+b") as handle:
            start = handle.seek(0, os.SEEK_END)
            if start > file.size:
                start = handle.truncate(0)
                handle.seek(0)
            meter.add(start)
            if start < file.size:
                _request(hub, listing, file, _Counted(handle, meter, file.size))
            handle.flush()
            os.fsync(handle.fileno())
        found = digest_of(part, file.digest)
        if found != file.digest:
            part.unlink()
            what = f"its checksum is {found[:16]}..., the hub promised {file.digest[:16]}..."
            raise _damaged(hub, listing, file, what)
        os.replace(part, place)


def _damaged(hub: Hub, listing: Listing, file: RemoteFile, what: str) -> HubError:
    return HubError(
        f"{file.path} arrived damaged: {what}",
        where=hub.page(listing.repo, listing.kind),
        mend="run the same command again; where it stays so, a proxy or mirror changes files on the way",
    )


def part_of(place: Path, file: RemoteFile) -> Path:
    """Where a download stands until it is whole; the checksum in its name keeps versions apart."""
    return place.with_name(f".{place.name}.{file.digest[:16]}.part")


def _request(hub: Hub, listing: Listing, file: RemoteFile, handle: _Counted) -> None:
    """Bring what is missing behind the handle's place; tries end when several in a row bring nothing."""
    library = hub.library()
    with hub.errors(listing.repo, kind=listing.kind, revision=listing.revision):
        address = library.hf_hub_url(
            listing.repo, file.path, repo_type=listing.kind, revision=listing.commit, endpoint=hub.endpoint
        )
        barren = 0
        while (start := handle.tell()) < file.size:
            place, ours = _locate(hub, address)
            try:
                _stream(hub, place, hub.secret() if ours else "", handle, start, file.size)
            except _Surplus:
                handle.seek(0)
                handle.truncate()
                raise _damaged(hub, listing, file, f"more than the promised {file.size:,} bytes came") from None
            except (library.errors.HTTPError, OSError) as error:
                barren = 0 if handle.tell() > start else barren + 1
                ours = _is_hub(_answered(error, place), address)
                if barren == _TRIES or not _may_pass(error, ours):
                    raise error if ours else _refused(hub, listing, file, error) from None
                time.sleep(_WAIT * 2 ** max(0, barren - 1))


def _locate(hub: Hub, address: str) -> tuple[str, bool]:
    """Where the file of the hub's `address` lies now, and whether that is with the hub: no token goes elsewhere."""
    found = hub.library().get_hf_file_metadata(
        address, token=hub.secret() or False, endpoint=hub.endpoint, retry_on_errors=True
    )
    # A mirror may send its users on to the hub itself, which wants the token; the large-file store lies with another
    # host, behind a signed address: the token is not for it.
    return str(found.location), _is_hub(found.location, address)


def _is_hub(place: str, address: str) -> bool:
    """Whether `place` is with the hub of `address`, or with the one that mirrors send their users on to."""
    return _origin(place) in (_origin(address), _origin(ENDPOINT))


def _refused(hub: Hub, listing: Listing, file: RemoteFile, error: Exception) -> Exception:
    """A status of the large-file store, which says nothing of the hub's tokens and rights; other errors as they are."""
    status = _status(error)
    if status is None:
        return error
    return HubError(
        f"the store of large files answers with status {status} where {file.path} is asked for",
        where=hub.page(listing.repo, listing.kind),
        mend="wait a little, then run the same command again: it goes on where it stopped",
    )


def _status(error: Exception) -> int | None:
    """The status of the answer that an error tells of; None where there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _answered(error: Exception, asked: str) -> str:
    """The address that an error came from: the hub may have sent the request on elsewhere."""
    response = getattr(error, "response", None)
    return asked if response is None else str(response.url)


def _stream(hub: Hub, place: str, token: str, handle: Any, start: int, size: int) -> None:
    from huggingface_hub.file_download import http_get

    headers = hub.library().utils.build_hf_headers(token=token or False)
    headers["Accept-Encoding"] = "identity"  # ranges count the bytes of the file itself
    if size <= _PLAIN:
        http_get(place, handle, resume_size=start, headers=headers, expected_size=size)
        return
    end = min(size, start + _STRETCH)
    http_get(place, handle, headers={**headers, "Range": f"bytes={start}-{end - 1}"}, expected_size=end - start)


def _may_pass(error: Exception, ours: bool) -> bool:
    """Whether trying again can help: a broken line, a busy server, a signature that has run out."""
    if isinstance(error, OSError) and error.errno is not None:
        return False  # of this machine's disk
    status = _status(error)
    return status is None or not ours or status in (408, 429) or status >= 500


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
