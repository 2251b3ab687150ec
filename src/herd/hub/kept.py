"""Offline: a repository as the Hub's own cache on this machine holds it, listed as the hub would list it.

The cache names a file's content by its checksum, so what was copied from it is verified like a download.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from herd.errors import HubError
from herd.files import storage_errors
from herd.hub.client import Hub
from herd.hub.listing import Kind, Listing, RemoteFile, is_safe


def list_kept(hub: Hub, repo: str, *, revision: str = "main", kind: Kind = "model") -> tuple[Listing, Path]:
    """What the cache holds of `repo` at `revision`, and the folder it lies in; HubError when it holds nothing."""
    root = hub.cache or Path(hub.library().constants.HF_HUB_CACHE)
    store = root / f"{kind}s--{repo.replace('/', '--')}"
    named = store / "refs" / revision
    commit = named.read_text(encoding="utf-8").strip() if is_safe(revision) and named.is_file() else revision
    folder = store / "snapshots" / commit
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not folder.is_dir():
        raise HubError(
            f"offline (HF_HUB_OFFLINE is set), and {repo}@{revision} is not in the cache of this machine",
            where=str(root),
            mend="unset HF_HUB_OFFLINE; or fetch it where there is a network, and copy the folder here",
        )
    files, refused = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, digest = path.relative_to(folder).as_posix(), path.resolve().name
        if is_safe(name) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
            files.append(RemoteFile(name, path.stat().st_size, digest))
        else:
            refused.append(repr(name))
    return Listing(repo, kind, revision, commit, tuple(files), tuple(refused), cached=True), folder


def copy_kept(folder: Path, file: RemoteFile, place: Path) -> None:
    """Copy `file` out of the cache; HubError when the cache's copy is damaged."""
    if file.matches(place):
        return
    aside = place.with_name(f".{place.name}.part")
    with storage_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file.path, aside)
    if not file.matches(aside):
        aside.unlink()
        raise HubError(
            f"{file.path} is damaged in the cache: its content does not agree with its checksum",
            where=str(folder),
            mend="remove that folder and fetch it again where there is a network",
        )
    os.replace(aside, place)
