"""A stage is a value: a function, its typed settings, its input artifacts.

Its output folder is named by the hash of those, so a stage that exists is not run again and a changed setting re-runs
only what depends on it. Output is written into a folder aside and renamed when whole: `kill -9` loses nothing but the
stage under way, and a stage that keeps its own state in `ctx.scratch` (training does) goes on from there.

    corpus = Stage("corpus", "herd.road.corpus:run", settings, {})
    flagship = Stage("flagship", "herd.road.pretrain:run", settings, {"corpus": corpus})
    Runner(Path("runs/nano"), watch).run([corpus, flagship])

Covers: order, hashing, resume, one run at a time in a folder. Not here: what any stage does.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from herd import __version__
from herd.config import to_plain
from herd.errors import ArtifactError, BusyError
from herd.files import make_folder, read_json, replace_folder, storage_errors, write_json
from herd.progress import Progress, Silent


@dataclass(frozen=True)
class Stage:
    """`run` names a function "module:name" that takes a Context and may return metrics for herd.json."""

    name: str
    run: str
    settings: Any
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    version: int = 1  # raise it when the function's output changes for the same settings
    at_once: int = 1  # so many stages of this kind may run side by side (lanes.py); no part of the key

    @cached_property
    def key(self) -> str:  # cached: a graph has many ways to the same input
        parts = {
            "run": self.run,
            "version": self.version,
            "settings": to_plain(self.settings),
            "inputs": {name: stage.key for name, stage in sorted(self.inputs.items())},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.key}"


class Numbered(NamedTuple):
    """A stage and its place in the run, counted from 1."""

    stage: Stage
    number: int


@dataclass(frozen=True)
class Context:
    """What a stage's function gets. `out` is empty and becomes the artifact; `scratch` survives a kill; `device` is the
    name of one of `devices.py`."""

    out: Path
    scratch: Path
    settings: Any
    inputs: Mapping[str, Path]
    progress: Progress
    device: str = "cpu"
    mesh: Any = None  # of several processes that run the stage together (road/together.py); None: this one alone

    @property
    def is_first(self) -> bool:
        """Whether this process makes the artifact; others help, and what they write is thrown away."""
        return self.mesh is None or bool(self.mesh.is_first)


class Watch(Protocol):
    """Who looks at a run: the terminal, or nobody."""

    def start(self, stage: Stage, number: int, total: int) -> Progress: ...
    def done(self, stage: Stage, seconds: float, metrics: Mapping[str, Any], found: bool) -> None: ...


class Unwatched:
    def start(self, stage: Stage, number: int, total: int) -> Progress:
        return Silent()

    def done(self, stage: Stage, seconds: float, metrics: Mapping[str, Any], found: bool) -> None:
        pass


def ordered(stages: Sequence[Stage]) -> list[Stage]:
    """All stages that the given ones need, each once, inputs first."""
    seen: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for source in stage.inputs.values():
            visit(source)
        seen.setdefault(stage.folder, stage)

    for stage in stages:
        visit(stage)
    return list(seen.values())


def grouped(stages: Sequence[Stage]) -> list[list[Numbered]]:
    """Ordered stages in runs of neighbours that may go side by side: those with the same `at_once` above 1."""
    groups: list[list[Numbered]] = []
    for number, stage in enumerate(stages, 1):
        group = groups[-1] if groups else []
        if stage.at_once > 1 and group and group[0].stage.at_once == stage.at_once:
            group.append(Numbered(stage, number))
        else:
            groups.append([Numbered(stage, number)])
    return groups


class Runner:
    """Runs stages in a folder: `stages/<name>-<hash>` finished, `work/<name>-<hash>` under way.

    `device` is the run's: where models compute enters no hash, and a killed run may go on elsewhere.
    """

    def __init__(self, folder: Path, watch: Watch | None = None, *, device: str = "cpu") -> None:
        self.folder, self.watch, self.device = folder, watch or Unwatched(), device

    def path(self, stage: Stage) -> Path:
        return self.folder / "stages" / stage.folder

    def run(self, stages: Sequence[Stage], prepare: Callable[[], None] | None = None) -> dict[str, Path]:
        """Run what is not there yet; returns the folder of every stage by its name.

        `prepare` is called once the folder is ours, before the first stage.
        """
        todo = ordered(stages)
        with only_one(self.folder):
            if prepare:
                prepare()
            for group in grouped(todo):
                self.run_group(group, len(todo))
        return {stage.name: self.path(stage) for stage in todo}

    def run_group(self, group: Sequence[Numbered], total: int) -> None:
        """Neighbours that may go side by side: here one after the other, in lanes.py each when its inputs are there."""
        for stage, number in group:
            self.run_one(stage, number, total)

    def finished(self, stage: Stage) -> bool:
        return (self.path(stage) / "herd.json").is_file()

    def run_one(self, stage: Stage, number: int, total: int) -> None:
        """Run one stage whose inputs are there, or find it done. The folder's lock is the caller's."""
        work = self.folder / "work" / stage.folder
        if self.finished(stage):
            shutil.rmtree(work, ignore_errors=True)  # of a run that was killed after its last step
            made = read_json(self.path(stage) / "herd.json")
            self.watch.done(stage, made.get("seconds", 0.0), made.get("metrics", {}), True)
            return
        progress = self.watch.start(stage, number, total)
        out, scratch = work / "out", work / "scratch"
        with storage_errors(work):
            shutil.rmtree(out, ignore_errors=True)  # half an output of a killed try; scratch stays
            out.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
        inputs = {name: self.path(source) for name, source in stage.inputs.items()}
        spent_before = _spent(scratch)
        started = time.monotonic()
        with storage_errors(work), _clock(scratch, spent_before, started):
            context = Context(out, scratch, stage.settings, inputs, progress, self.device)
            metrics = dict(self.call(stage, context) or {})
            seconds = spent_before + time.monotonic() - started
            self._sign(stage, out, metrics, seconds)
            self.path(stage).parent.mkdir(parents=True, exist_ok=True)
            replace_folder(out, self.path(stage))
        shutil.rmtree(work, ignore_errors=True)
        self.watch.done(stage, seconds, metrics, False)

    def call(self, stage: Stage, context: Context) -> Mapping[str, Any] | None:
        """Run a stage's function."""
        return _function(stage.run)(context)

    def _sign(self, stage: Stage, out: Path, metrics: Mapping[str, Any], seconds: float) -> None:
        record = {
            "stage": stage.name,
            "key": stage.key,
            "run": stage.run,
            "version": stage.version,
            "settings": to_plain(stage.settings),
            "inputs": {name: source.folder for name, source in stage.inputs.items()},
            "metrics": metrics,
            "seconds": round(seconds, 3),
            "ended": round(time.time(), 3),
            "herd_version": __version__,
        }
        own = out / "herd.json"  # a model folder may have written its part already
        write_json(own, {**(read_json(own) if own.exists() else {}), **record})


def _function(name: str) -> Callable[[Context], Mapping[str, Any] | None]:
    module, _, attribute = name.partition(":")
    function: Callable[[Context], Mapping[str, Any] | None] = getattr(importlib.import_module(module), attribute)
    return function


def _spent(scratch: Path) -> float:
    file = scratch / ".seconds"
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0


@contextmanager
def _clock(scratch: Path, before: float, started: float) -> Iterator[None]:
    """Keep the time an interrupted try took, so that a resumed stage reports all of it."""
    try:
        yield
    except BaseException:
        if scratch.exists():
            (scratch / ".seconds").write_text(str(before + time.monotonic() - started))
        raise


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process gets a BusyError that names the first."""
    make_folder(folder)
    with storage_errors(folder):
        handle = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  held for the whole block
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise BusyError(
                f"another run (process {handle.read().strip() or 'unknown'}) is at work in this folder",
                where=str(folder),
                mend="wait for it to end, or give this run another folder with --out",
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
    finally:
        handle.close()


def wall_seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """How long the stages of these herd.json took on the clock: those side by side count once."""
    timed = [one for one in records if "seconds" in one]
    total, reached = float(sum(one["seconds"] for one in timed if "ended" not in one)), 0.0
    for start, end in sorted((one["ended"] - one["seconds"], one["ended"]) for one in timed if "ended" in one):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def link(folder: Path, name: str, target: Path) -> None:
    """Give `target` the friendly name `folder/name` (a relative link, replaced in one step)."""
    place = folder / name
    if place.exists() and not place.is_symlink():
        raise ArtifactError(
            "a file of the user stands where a link should go", where=str(place), mend="move it to another place"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, place.parent))
    os.replace(aside, place)
