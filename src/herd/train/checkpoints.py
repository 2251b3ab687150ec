"""Checkpoints of a run: `folder/step-N/`, whole or not there, written beside training, the last few kept.

    kept = Checkpoints(folder, keep=2)
    found = kept.newest(progress)           # verified; a damaged one is reported, and the one before it used
    found.load({"model.lm_head.weight": weight, ...})            # into the tensors of any plan
    kept.save(step, tensors, state)         # a thread copies and writes, while the next step computes its gradients
    kept.staged()                           # before the tensors change

What a checkpoint looks like on disk: weights/sharded.py. One process or several: the files differ in number only, and
any can be opened by any number of processes. A run's processes share one disk; object stores are not covered.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herd.errors import ArtifactError, FormatError, HerdError
from herd.files import atomic_file, read_json, replace_folder
from herd.progress import Progress
from herd.train.sharded_files import Written, refused, write_manifest, write_shards
from herd.train.sharded_ranks import Ranks
from herd.train.sharded_shards import Shard, Staging, shard_of
from herd.train.sharded_writer import Writer
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import STATE, Box, Manifest, read_manifest, verify

_NAME = re.compile(r"step-(\d+)")
_LEFT_ASIDE = re.compile(r"\.step-\d+\.((\d+\.)?part|old)")


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose files are as they were written."""

    path: Path
    state: Mapping[str, Any]  # plain values: step, tokens, seconds, window, average_count, settings, objective
    shapes: Mapping[str, Box]  # of every tensor of every rank
    _manifest: Manifest = field(repr=False)
    _ranks: Ranks = field(repr=False)

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def check_shapes(self, group: str, own: Mapping[str, Box]) -> None:
        """ArtifactError on every rank unless the tensors of `group` are those of all ranks together."""
        before = {name: shape for name, shape in self.shapes.items() if name.startswith(f"{group}.")}
        now = {name: shape for part in self._ranks.gather(dict(own)) for name, shape in part.items()}
        if before != now:
            raise ArtifactError("the checkpoint is of a model of another shape", where=str(self.path))

    @torch.no_grad()
    def load(self, targets: Mapping[str, Tensor]) -> None:
        """Fill these tensors, or this process's shards of them. ArtifactError for a name that is not there."""
        files = ShardFiles(self.path, self._manifest)
        for name, target in targets.items():
            shard = shard_of(name, target)
            if self.shapes.get(name) != shard.whole:
                found = list(self.shapes[name]) if name in self.shapes else "not there"
                said = f"{name} is {found} in the checkpoint, and {list(shard.whole)} here"
                raise ArtifactError(said, where=str(self.path))
            files.read_into(shard.local, name, shard.offset)


class Checkpoints:
    """The checkpoints in `folder`: the newest `keep`, and for good those of steps that `keep_every` divides.

    All processes of a run make one together and call the same methods in the same order.
    """

    def __init__(self, folder: Path, keep: int, keep_every: int = 0) -> None:
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.ranks = Ranks.here()
        self._staging = Staging()
        self._writer = Writer()

    def newest(self, progress: Progress) -> Saved | None:
        """The newest sound checkpoint, or None when there is none at all; what killed runs left is removed.

        A damaged one is noted and passed over. Raises ArtifactError when every one is damaged.
        """
        faults = []
        for step in self.ranks.first(self._swept_steps):
            found = self._open(self.folder / f"step-{step}")
            if isinstance(found, Saved):
                return found
            faults.append(f"checkpoint step-{step} cannot be used: {found}")
            progress.note(faults[-1])
        if faults:
            mend = f"remove {self.folder} to train from the beginning"
            raise ArtifactError("; ".join(faults), where=str(self.folder), mend=mend)
        return None

    def _open(self, path: Path) -> Saved | str:
        """The checkpoint, or what is wrong with it. Each rank verifies its share of the files; all say the same."""
        fault, found = "", None
        try:
            found = read_manifest(path)
            verify(path, found, sorted(found.files)[self.ranks.rank :: self.ranks.world])
        except (ArtifactError, FormatError) as error:
            name = Path(error.where).name
            fault = error.message if name in error.message else f"{name}: {error.message}"
        faults = sorted({one for one in self.ranks.gather(fault) if one})
        if faults or found is None:
            return "; ".join(faults)
        state = read_json(path / STATE)
        return Saved(path, state, {name: one.shape for name, one in found.tensors.items()}, found, self.ranks)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Begin `folder/step-N`, which a thread copies and then writes; the one before is waited for first.

        `tensors` may change again after `staged()`. Each process gives the names it has, with its shard of each (plain
        tensors are whole); `state` and the small `files` are rank 0's. Raises StorageError when the one before failed.
        """
        self.wait()
        shards = self._staging.begin(tensors)
        small = {**(files or {}), STATE: (json.dumps(state, indent=2) + "\n").encode()}
        self._writer.start(partial(self._write, step, shards, small))

    def staged(self) -> None:
        """To be called before every update of the state: waits until a checkpoint that was begun has its copy."""
        self._staging.staged()

    @property
    def failed(self) -> bool:
        """Whether the last checkpoint could not be written, as far as this process knows: `wait` raises why."""
        return self._writer.failed

    def wait(self) -> None:
        """Until what is under way is on the disk; raises what went wrong. What stood before is untouched then."""
        self._writer.wait()

    def close(self, progress: Progress) -> None:
        """Wait at the end of a run, which may have an error of its own: one of the writer is noted."""
        try:
            self.wait()
        except HerdError as error:
            progress.note(f"the last checkpoint is missing: {error.message}")
        self._writer.close()

    def _write(self, step: int, shards: Sequence[Shard], small: Mapping[str, bytes]) -> None:
        path = self.folder / f"step-{step}"
        aside = path.with_name(f".{path.name}.part")
        begin, finish = partial(_begin, aside, small), partial(self._finish, aside, path)
        try:
            self._staging.fill()
            if self.ranks.group is None:
                begin()
                finish(write_shards(aside, shards, 0, 1))
            else:
                from herd.train.sharded_dcp import save_together  # half a second to import; one process needs it not

                save_together(aside, shards, self.ranks, begin, finish)
        except BaseException as error:
            if self.ranks.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            if isinstance(error, OSError):
                raise refused(error, self.folder) from error
            raise

    def _finish(self, aside: Path, path: Path, written: list[Written]) -> None:
        """On rank 0, when every file is synced: the manifest, the name, and then what is too old goes."""
        write_manifest(aside, written)
        _sync(aside)
        replace_folder(aside, path)
        _sync(self.folder)
        self._prune(int(path.name.removeprefix("step-")))

    def _prune(self, newest: int) -> None:
        """Later steps than the newest are damaged, or the run would have gone on from them: they go too."""
        steps = [step for step in _steps(self.folder) if step <= newest]
        kept = {*steps[: self.keep], *(step for step in steps if self.keep_every and step % self.keep_every == 0)}
        for step in _steps(self.folder):
            if step not in kept:
                going = self.folder / f".step-{step}.old"  # half a checkpoint never has a checkpoint's name
                shutil.rmtree(going, ignore_errors=True)
                (self.folder / f"step-{step}").rename(going)
                shutil.rmtree(going, ignore_errors=True)

    def _swept_steps(self) -> list[int]:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _LEFT_ASIDE.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        return _steps(self.folder)


def _begin(aside: Path, small: Mapping[str, bytes]) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, data in small.items():
        with atomic_file(aside / name) as handle:
            handle.write(data)


def _sync(folder: Path) -> None:
    """Names are on the disk when their folder is: a machine that loses power keeps the checkpoint."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest_folder(folder: Path) -> Path:
    """Where the newest checkpoint of `folder` lies, as it is. ArtifactError without any."""
    steps = _steps(folder)
    if not steps:
        raise ArtifactError("no checkpoint is here", where=str(folder))
    return folder / f"step-{steps[0]}"


def _steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, the newest first."""
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(found[1]) for found in names if found), reverse=True)
