"""Stages on several processes that torchrun started: the trainings of large models by all, all else by the first.

    with processes(plan, device) as mesh:
        TogetherRunner(folder, mesh, watch, device=str(mesh.device)).run(stages)

The first process leads: it walks through the stages, and calls the others for those that they share. What it makes is
the artifact. It trains the small models of a ladder alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from herd.progress import Silent
from herd.stages import Context, Runner, Stage, Watch, ordered
from herd.train.parallel.mesh import Mesh
from herd.train.sharded_ranks import Ranks

SHARED = ("herd.road.pretrain:run", "herd.road.adopt.train:run")


class TogetherRunner(Runner):
    """A `Runner` that all processes of a mesh call with the same stages."""

    def __init__(self, folder: Path, mesh: Mesh, watch: Watch | None = None, *, device: str = "cpu") -> None:
        super().__init__(folder, watch, device=device)
        self.mesh = mesh
        self.ranks = Ranks.here(patient=True)

    def run(self, stages: Sequence[Stage], prepare: Callable[[], None] | None = None) -> dict[str, Path]:
        if not self.mesh.is_first:
            return self._follow(ordered(stages))
        paths = super().run(stages, prepare)
        self._tell("")
        return paths

    def call(self, stage: Stage, context: Context) -> Mapping[str, Any] | None:
        if stage.run not in SHARED or stage.name.startswith("ladder-"):
            return super().call(stage, context)
        self._tell(stage.folder)
        made = super().call(stage, replace(context, mesh=self.mesh))
        self.ranks.gather(None)  # nobody writes into the scratch any more
        return made

    def _follow(self, stages: Sequence[Stage]) -> dict[str, Path]:
        """Help with what the first one calls for, until it is done."""
        known = {stage.folder: stage for stage in stages}
        while called := self._tell(""):
            stage = known[called]
            work = self.folder / "work" / stage.folder
            aside = work / f"rank-{self.mesh.rank}"  # what a helper writes is nobody's
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            inputs = {name: self.path(source) for name, source in stage.inputs.items()}
            context = Context(aside, work / "scratch", stage.settings, inputs, Silent(), self.device, self.mesh)
            super().call(stage, context)
            shutil.rmtree(aside, ignore_errors=True)
            self.ranks.gather(None)
        return {stage.name: self.path(stage) for stage in stages}

    def _tell(self, folder: str) -> str:
        """What the first process says, on every process."""
        return self.ranks.first(lambda: folder)
