"""Stage `hub`: documents out of dataset repositories, file by file, within limits.

A file is fetched, read into a part of the artifact, and removed: the disk holds one raw file at a time. The commit of
each dataset is pinned when it is first asked for; a killed stage goes on with the file it was at, at that commit.
Offline (HF_HUB_OFFLINE) files come from the hub's cache on this machine, or the stage says that it cannot run.

Artifacts: documents.jsonl.gz; unreadable.jsonl, what could not be read and why.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from herd.config import fingerprint, from_plain
from herd.corpus.documents import Document, Unreadable
from herd.corpus.read import part_of, read_part
from herd.corpus.settings import ReadSettings
from herd.errors import InputError
from herd.files import atomic_file, read_json, read_jsonl, write_json, write_jsonl
from herd.hub.client import Hub
from herd.hub.download import check_room, fetch
from herd.hub.kept import copy_kept, list_kept
from herd.hub.listing import Listing, RemoteFile, list_files
from herd.hub.settings import HubDataset
from herd.progress import Progress
from herd.road.settings import HubDocuments
from herd.stages import Context

DATA = (".parquet", ".jsonl", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True)
class Taken:
    """What one file, or a whole dataset, gave."""

    documents: int = 0
    bytes: int = 0
    unreadable: int = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.documents + other.documents, self.bytes + other.bytes, self.unreadable + other.unreadable)


def run(ctx: Context) -> Mapping[str, Any]:
    settings: HubDocuments = ctx.settings
    hub = Hub.from_environment()
    parts: list[Path] = []
    told: list[dict[str, Any]] = []
    for dataset in settings.datasets:
        reading = _Reading(hub, dataset, settings.read, ctx.scratch / fingerprint(dataset), ctx.progress)
        told.append(reading.all())
        parts += reading.parts
    _join([part / "documents.jsonl.gz" for part in parts], ctx.out / "documents.jsonl.gz")
    write_jsonl(ctx.out / "unreadable.jsonl", (row for part in parts for row in read_jsonl(part / "unreadable.jsonl")))
    total = sum((from_plain(Taken, one["taken"]) for one in told), Taken())
    return {**asdict(total), "datasets": told}


@dataclass
class _Reading:
    """One dataset: its plan (commit and files), and its parts in `scratch`."""

    hub: Hub
    dataset: HubDataset
    read: ReadSettings
    scratch: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.parts: list[Path] = []

    def all(self) -> dict[str, Any]:
        listing, kept = self._plan()
        taken = Taken()
        for number, file in enumerate(listing.files):
            if self._full(taken):
                break
            part = self.scratch / f"part-{number:05d}"
            if not (part / "taken.json").is_file():  # written last
                self._read(listing, kept, file, part, taken)
            taken += from_plain(Taken, read_json(part / "taken.json"))
            self.parts.append(part)
        self.progress.note(
            f"{self.dataset.repo} at {listing.commit[:12]}: {taken.documents:,} documents, {taken.bytes / 1e6:,.1f} MB "
            f"of text from {len(self.parts)} of {len(listing.files)} files"
        )
        files = [file.path for file in listing.files[: len(self.parts)]]
        return {
            "source": self.dataset.source,
            "repo": self.dataset.repo,
            "commit": listing.commit,
            "files": files,
            "taken": asdict(taken),
        }

    def _plan(self) -> tuple[Listing, Path | None]:
        """The files to read, at the commit of the first try; the folder of the cache when offline."""
        path, dataset = self.scratch / "plan.json", self.dataset
        plan = read_json(path) if path.is_file() else None
        revision, kept = plan["commit"] if plan else dataset.revision, None
        if self.hub.offline:
            listing, kept = list_kept(self.hub, dataset.repo, revision=revision, kind="dataset")
        elif plan:
            files = tuple(RemoteFile(**file) for file in plan["files"])
            return Listing(dataset.repo, "dataset", dataset.revision, plan["commit"], files), None
        else:
            listing = _list(self.hub, dataset)
        listing = replace(listing, files=_wanted(listing, dataset.files))
        write_json(path, {"commit": listing.commit, "files": [asdict(file) for file in listing.files]})
        return listing, kept

    def _full(self, taken: Taken) -> bool:
        most, most_bytes = self.dataset.max_documents, self.dataset.max_bytes
        return bool(most and taken.documents >= most) or bool(most_bytes and taken.bytes >= most_bytes)

    def _read(self, listing: Listing, kept: Path | None, file: RemoteFile, part: Path, before: Taken) -> None:
        place = self.scratch / "file" / file.path.replace("/", "_")
        if kept:
            copy_kept(kept, file, place)
        else:
            check_room(self.scratch, file.size)
            fetch(self.hub, listing, file, place, self.progress)
        unreadable: list[Unreadable] = []
        size = 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal size
            for count, document in enumerate(self._documents(place, file, unreadable), before.documents):
                if self._full(Taken(count, before.bytes + size)):
                    return
                size += len(document.text.encode(errors="surrogatepass"))
                yield document.row()

        documents = write_jsonl(part / "documents.jsonl.gz", rows())
        write_jsonl(part / "unreadable.jsonl", map(asdict, unreadable))
        write_json(part / "taken.json", asdict(Taken(documents, size, len(unreadable))))
        shutil.rmtree(place.parent)

    def _documents(self, place: Path, file: RemoteFile, unreadable: list[Unreadable]) -> Iterator[Document]:
        settings = replace(self.read, text_column=self.dataset.text_column)
        part = part_of(str(place), f"{self.dataset.repo}/{file.path}", self.dataset.source, file.size)
        for item in read_part(part, settings):
            if isinstance(item, Unreadable):
                unreadable.append(item)
            else:  # a record's own `source` would escape the mixing weights
                yield replace(item, source=self.dataset.source, lang=item.lang or self.dataset.lang)


def _list(hub: Hub, dataset: HubDataset) -> Listing:
    """What the patterns' folders hold; everything where they hold nothing, so that an error can say what there is."""
    under = {_fixed(pattern) for pattern in dataset.files} or {""}
    listing = list_files(hub, dataset.repo, revision=dataset.revision, kind="dataset", under=sorted(under))
    if listing.files or under == {""}:
        return listing
    return list_files(hub, dataset.repo, revision=dataset.revision, kind="dataset")


def _fixed(pattern: str) -> str:
    """The folders of a pattern before its first wildcard."""
    return re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]


def _wanted(listing: Listing, patterns: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    data = [file for file in listing.files if file.path.lower().endswith(DATA)]
    found = [f for f in data if not patterns or any(fnmatchcase(f.path, pattern) for pattern in patterns)]
    if not found:
        folders = sorted({file.path.rpartition("/")[0] or "." for file in data})
        holds = f"data files in {', '.join(folders[:8])}" if data else f"no {', '.join(DATA)} among its files"
        raise InputError(
            f"no file of the dataset is wanted: it holds {holds}",
            where=f"{listing.repo}@{listing.revision}",
            mend='name others with documents.hub, e.g. "files": ["data/*.parquet"]',
        )
    return tuple(found)


def _join(parts: list[Path], path: Path) -> None:
    """One file out of the parts: gzip streams one behind the other are a gzip file."""
    if not parts:
        write_jsonl(path, ())
        return
    with atomic_file(path) as whole:
        for part in parts:
            with open(part, "rb") as handle:
                shutil.copyfileobj(handle, whole, 1 << 20)
