"""A folder in the making that survives a kill: filled aside, resumed by the same command, renamed when whole.

    with staged(target, plan=[...]) as out:
        if (done := out.done("big.bin")) is None: ...      # nothing of it is there yet
        out.mark("big.bin", 7)                             # seven parts are on the disk, whatever happens next

Unlike `files.atomic_folder` the folder aside is kept when the process dies, is interrupted or finds the disk full. Any
other error removes it. A plan that differs from the one before starts anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from herd.errors import BusyError, InputError, StorageError
from herd.files import read_json, replace_folder, storage_errors, write_json

_JOURNAL = ".herd-progress.json"


class Staging:
    """The folder aside, and how far each of its files is known to be on the disk."""

    def __init__(self, path: Path, plan: str) -> None:
        self.path = path
        self._plan = plan
        self._done: dict[str, Any] = {}

    def resume(self) -> bool:
        """Take up what an earlier run with the same plan left; anything else is removed."""
        journal = self.path / _JOURNAL
        try:
            content = read_json(journal) if journal.exists() else {}
        except InputError:
            content = {}
        if isinstance(content, dict) and content.get("plan") == self._plan and isinstance(content.get("done"), dict):
            self._done = content["done"]
            for half in self.path.glob(".*.part"):  # of an atomic file, where the kill hit
                half.unlink()
            return bool(self._done)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        return False

    def done(self, name: str) -> Any:
        """What `mark` last said of this file, None before that."""
        return self._done.get(name)

    def mark(self, name: str, state: Any) -> None:
        """Say how far a file is; call it after fsync. `state` is anything JSON holds."""
        self._done[name] = state
        write_json(self.path / _JOURNAL, {"plan": self._plan, "done": self._done})

    def finish(self) -> None:
        (self.path / _JOURNAL).unlink(missing_ok=True)


@contextmanager
def staged(target: Path, plan: object, *, single_file: bool = False) -> Iterator[Staging]:
    """Give a staging folder; what it holds takes the place of `target` if the block ends well.

    InputError if `target` holds something already: nothing of the user's is ever replaced. BusyError if another
    process is making the same target.
    """
    target = Path(os.path.abspath(target))
    refuse_occupied(target)
    aside = target.with_name(f".{target.name}.converting")
    with storage_errors(target), _only_one(aside.with_name(aside.name + ".lock"), target):
        out = Staging(aside, hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest())
        out.resume()
        try:
            yield out
        except (StorageError, OSError):
            raise
        except Exception:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        out.finish()
        _put(aside, target, single_file)


def refuse_occupied(target: Path) -> None:
    """InputError if something stands at `target`; an empty folder may be filled."""
    try:
        taken = target.is_file() or (target.is_dir() and any(target.iterdir()))
    except OSError as error:
        raise _unwritable(error, target) from error
    if taken:
        raise InputError(
            "something is here already, and it is not replaced",
            where=str(target),
            mend="name another place, or remove what stands there",
        )


def _unwritable(error: OSError, target: Path) -> StorageError:
    said = f"cannot write here: {error.strerror}"
    return StorageError(said, where=str(target), mend="name a place where you may write")


def _put(aside: Path, target: Path, single_file: bool) -> None:
    if not single_file:
        replace_folder(aside, target)
        return
    (made,) = aside.iterdir()
    if target.is_dir():
        target.rmdir()
    os.replace(made, target)
    aside.rmdir()


@contextmanager
def _only_one(lock: Path, target: Path) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _unwritable(error, target) from error
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                "another process is writing this", where=str(target), mend="wait for it, or name another place"
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
