"""A run's stages as folders: which are there, what each says of itself, scores as they were saved.

A stage that a recipe does not have gives None or nothing. A stage that is there and lacks its file is an error: a
claim must not vanish because a file did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from herd.evaluate.compare import compare
from herd.evaluate.harness import load_results
from herd.evaluate.statistics import Interval
from herd.evaluate.suite import SuiteResult
from herd.files import read_json
from herd.report.data import Score
from herd.road.world import PROBE

SCORES = "scores-"


@dataclass(frozen=True)
class Folders:
    """`paths` holds the finished folder of each stage by the stage's name, in the order in which they ran."""

    recipe: str
    paths: Mapping[str, Path]

    def __contains__(self, name: str) -> bool:
        return name in self.paths

    @property
    def home(self) -> str:
        """Where a user finds the run."""
        return f"runs/{self.recipe}"

    def made(self, name: str) -> Mapping[str, Any]:
        """A stage's herd.json; empty for a stage that the recipe does not have."""
        return read_json(self.paths[name] / "herd.json") if name in self.paths else {}

    def metrics(self, name: str) -> Mapping[str, Any]:
        return self.made(name).get("metrics") or {}

    def json(self, name: str, file: str, *, optional: bool = False) -> Any:
        """A JSON artifact of a stage. Raises ArtifactError when the stage lacks it, unless it is `optional`."""
        if name not in self.paths or (optional and not (self.paths[name] / file).exists()):
            return None
        return read_json(self.paths[name] / file)

    @cached_property
    def rounds(self) -> tuple[str, ...]:
        names = [name for name in self.paths if name.startswith("round-")]
        return tuple(sorted(names, key=lambda name: int(name.removeprefix("round-"))))

    @property
    def flagship(self) -> str:
        """The stage of the flagship that is released: the last round's, or as far as the recipe goes."""
        chain = ("flagship-base", "flagship-start", *self.rounds)
        return next((name for name in reversed(chain) if name in self.paths), "flagship-base")

    @cached_property
    def results(self) -> Mapping[str, SuiteResult]:
        """Scores on the held-out suite by the name of the stage that made the model."""
        return {name: load_results(path) for name, path in self._scored.items()}

    @cached_property
    def talk_results(self) -> Mapping[str, SuiteResult]:
        """Scores on the probe of conversations by the same names; nothing for a world without one."""
        probed = {name: path / PROBE for name, path in self._scored.items() if (path / PROBE).is_dir()}
        return {name: load_results(path) for name, path in probed.items()}

    @cached_property
    def _scored(self) -> Mapping[str, Path]:
        return {name.removeprefix(SCORES): path for name, path in self.paths.items() if name.startswith(SCORES)}

    def compared(self, first: str, second: str) -> Mapping[str, Any] | None:
        """`evaluate.compare` of two models, second minus first; None where one of them has no scores."""
        if first not in self.results or second not in self.results:
            return None
        if (first, second) not in self._compared:
            self._compared[first, second] = compare(self.results[first], self.results[second])
        return self._compared[first, second]

    @cached_property
    def _compared(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {}

    def command(self, name: str, file: str) -> str:
        """The line that makes the run (or finds it done) and prints an artifact of it."""
        folder = self.paths[name].name if name in self.paths else name
        return f"{self.raising} && python -m json.tool {self.home}/stages/{folder}/{file}"

    @property
    def raising(self) -> str:
        return f"herd raise {self.recipe}"


def model_bytes(folder: Path) -> int | None:
    """Bytes of a model's tensors on disk; None where there are none."""
    files = list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) if files else None


def as_score(interval: Interval, n: int | None = None) -> Score:
    return Score(interval.value, interval.low, interval.high, n)


def difference_score(found: Mapping[str, Any]) -> Score:
    """The paired difference of one part of what `evaluate.compare` returns."""
    one = found["difference"]
    return Score(one["value"], one["low"], one["high"], found["n"])
