"""What stands already where a pull is to go: whose folder it is, what of it can be used, what must not be lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError
from herd.files import storage_errors
from herd.hub.listing import RemoteFile
from herd.weights.herd_json import herd_json

RECORD = "pulled"  # the key in herd.json


def record_of(folder: Path) -> Mapping[str, Any]:
    """What herd pull wrote into the folder's herd.json; empty where it did not make the folder."""
    record = herd_json(folder).get(RECORD)
    return record if isinstance(record, dict) else {}


def remembered(out: Path) -> dict[str, RemoteFile]:
    """The files that an earlier pull brought, by their names in `out`; none where its record is of another form."""
    files = record_of(out).get("files")
    if not isinstance(files, dict):
        return {}
    try:
        return {n: RemoteFile(str(f["path"]), int(f["bytes"]), str(f["digest"])) for n, f in files.items()}
    except (KeyError, TypeError, ValueError):
        return {}


def refuse_foreign(out: Path, names: set[str]) -> None:
    """Only a folder that an earlier pull of the same repository made may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    record = record_of(out)
    if record.get("repo") not in names:
        what = f"holds {record['repo']}" if record else "was not made by herd pull"
        raise ArtifactError(f"this folder {what}", where=str(out), mend="name another with --out")


def refuse_loss(out: Path) -> None:
    """What others put into the folder would be gone with it."""
    known = {*remembered(out), "herd.json"}
    added = sorted(path.name for path in out.iterdir() if path.name not in known) if out.is_dir() else []
    if added:
        raise ArtifactError(
            f"this folder would be replaced, and holds what herd pull did not bring: {', '.join(added[:5])}",
            where=str(out),
            mend="move that elsewhere, or name another folder with --out",
        )


def take_over(out: Path, staging: Path, files: Mapping[str, RemoteFile]) -> None:
    """Files of an earlier pull that have not changed since are linked, not fetched."""
    for name in files:
        old, new = out / name, staging / name
        if old.is_file() and not old.is_symlink() and not new.exists():
            with storage_errors(new):
                try:
                    os.link(old, new)
                except PermissionError:  # a disk without links
                    shutil.copyfile(old, new)


def is_same(out: Path, staging: Path, commit: str, files: Mapping[str, RemoteFile]) -> bool:
    """Whether the folder already holds this commit: all that was taken over from it stood the test."""
    same = record_of(out).get("commit") == commit and set(remembered(out)) == set(files)
    return same and all(_is_link(out / name, staging / name) for name in files if name != "herd.json")


def _is_link(old: Path, new: Path) -> bool:
    return old.is_file() and old.samefile(new)
