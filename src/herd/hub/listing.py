"""The files of a repository at one commit: names that are safe to write, sizes, checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from herd.errors import HubError
from herd.hub.client import Hub, is_repo_name

Kind = Literal["model", "dataset"]
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """`digest` is the SHA-256 of a large file, the git blob id (SHA-1 with a header) of a small one."""

    path: str
    size: int
    digest: str

    def matches(self, place: Path) -> bool:
        """Whether the file at `place` is this one, byte for byte."""
        return place.is_file() and place.stat().st_size == self.size and digest_of(place, self.digest) == self.digest


@dataclass(frozen=True)
class Listing:
    """`repo` is its name as the hub has it now: one that was renamed answers to its old name too.

    `refused` are names that a folder of ours must not hold: paths that lead out of it, control characters. `cached`
    says that this is what the cache of this machine holds, which may be a part.
    """

    repo: str
    kind: Kind
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    refused: tuple[str, ...] = ()
    cached: bool = False


def list_files(
    hub: Hub, repo: str, *, revision: str = "main", kind: Kind = "model", under: Iterable[str] = ("",)
) -> Listing:
    """Everything in `repo` at `revision` (a branch, a tag or a commit), which is pinned to its commit.

    `under` names folders to look in, "" the whole: a dataset of a thousand languages has many pages of names. Where
    one of them is not there, it gives nothing.
    """
    hub.refuse_offline(f"the list of files of {repo}")
    with hub.errors(repo, kind=kind, revision=revision):
        try:
            about = hub.api().repo_info(repo, revision=revision, repo_type=kind)
            if not re.fullmatch(r"[0-9a-f]{40}", str(about.sha)):
                raise HubError("the hub named no commit", where=hub.page(repo, kind), mend="look at HF_ENDPOINT")
            name = about.id if is_repo_name(about.id) else repo
            tree = _tree(hub, name, kind, about.sha, under)
            return _sorted(Listing(name, kind, revision, about.sha, ()), tree.values())
        except (KeyError, TypeError, AttributeError) as error:  # JSON of another shape
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _tree(hub: Hub, repo: str, kind: Kind, commit: str, under: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for folder in under:
        try:
            entries = hub.api().list_repo_tree(repo, folder or None, recursive=True, revision=commit, repo_type=kind)
            tree |= {entry.path: entry for entry in entries}
        except hub.library().errors.EntryNotFoundError:
            continue
    return tree


def _sorted(empty: Listing, tree: Iterable[Any]) -> Listing:
    files, refused = [], []
    for entry in tree:
        if not hasattr(entry, "blob_id"):
            continue  # a folder
        if not is_safe(entry.path):
            refused.append(repr(entry.path))
            continue
        lfs = getattr(entry, "lfs", None)
        file = RemoteFile(entry.path, int(lfs.size if lfs else entry.size), str(lfs.sha256 if lfs else entry.blob_id))
        if file.size < 0 or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.digest):
            raise HubError(f"no size or checksum is known of {entry.path}", where=empty.repo)
        files.append(file)
    files.sort(key=lambda file: file.path)
    return Listing(empty.repo, empty.kind, empty.revision, empty.commit, tuple(files), tuple(refused))


def is_safe(path: str) -> bool:
    """A relative path of plain names that stays inside its folder, on any system."""
    parts = path.split("/")
    plain = path.isprintable() and not set(path) & set('\\:*?"<>|') and len(path) <= 400
    return plain and all(part.strip(" ") == part and part not in ("", ".", "..") and len(part) < 200 for part in parts)


def digest_of(place: Path, like: str) -> str:
    """The digest of a file in the kind of `like`: 64 hex digits are SHA-256, 40 a git blob id."""
    kind = hashlib.sha256() if len(like) == 64 else hashlib.sha1(f"blob {place.stat().st_size}\0".encode())
    with open(place, "rb") as handle:
        while block := handle.read(_BLOCK):
            kind.update(block)
    return kind.hexdigest()
