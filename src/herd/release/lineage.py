"""Where a model comes from, read out of the herd.json files that lead to it.

    lineage = trace(Path("runs/nano/flagship-fp8"))
    lineage.steps        # the stages that made it, inputs first
    lineage.origins      # models of others among them: weights it began with, outputs it learnt from

A herd.json names its sources as `inputs` (sibling folders of a run), as `from`, `adopted_from`, `base`, `model`,
`reference` or `teacher` (a folder, or a name), and as `pulled` (by herd pull). `teacher` means outputs, the others
weights. A `model` or `adapter` inside a stage's folder belongs to that stage. A folder that names no source and is no
stage has an unknown origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from herd.errors import ArtifactError
from herd.files import read_json
from herd.hub.standing import RECORD
from herd.weights.herd_json import herd_json

Use = Literal["weights", "outputs"]
_SOURCES: dict[str, Use] = {
    "from": "weights",
    "adopted_from": "weights",
    "base": "weights",
    "model": "weights",
    "reference": "weights",
    "teacher": "outputs",
}


@dataclass(frozen=True)
class Step:
    """One folder of the making and its herd.json. `use` says how it went into what came after."""

    name: str
    folder: Path
    made: Mapping[str, Any]
    use: Use = "weights"

    @property
    def metrics(self) -> Mapping[str, Any]:
        return _table(self.made.get("metrics"))

    @property
    def settings(self) -> Mapping[str, Any]:
        return _table(self.made.get("settings"))


@dataclass(frozen=True)
class Origin:
    """A model that was not made here; `folder` is None where it was only named."""

    name: str
    use: Use
    licence: str = ""
    folder: Path | None = None
    commit: str = ""


@dataclass(frozen=True)
class Lineage:
    """`gaps` are sources that nobody finds, and folders that name none: what they are is not known."""

    steps: tuple[Step, ...]
    origins: tuple[Origin, ...]
    gaps: tuple[str, ...] = ()

    @property
    def model(self) -> Step:
        return self.steps[-1]

    @property
    def known(self) -> bool:
        """Whether every source down to documents or to a pulled model is recorded."""
        return not self.gaps

    @property
    def own_texts(self) -> tuple[str, ...]:
        """Documents and datasets of the user's, whose authors nothing records."""
        found = [step.settings.get("user") or step.settings.get("data") or step.made.get("data") for step in self.steps]
        return tuple(dict.fromkeys(Path(one).name for one in found if isinstance(one, str) and one))

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.made.get("stage") == name), None)


def trace(folder: Path, made_from: Path | None = None) -> Lineage:
    """The lineage of the model in `folder`; `made_from` is the folder of the model that it was converted from.

    ArtifactError when there is no such folder.
    """
    folder, made_from = Path(folder).resolve(), Path(made_from).resolve() if made_from else None
    for place in (folder, made_from):
        if place is not None and not place.is_dir():
            raise ArtifactError("there is no such folder", where=str(place), mend="give a model folder")
    walk = _Walk()
    walk.visit(folder, "weights", made_from)
    return Lineage(tuple(walk.steps.values()), tuple(dict.fromkeys(walk.origins)), tuple(dict.fromkeys(walk.gaps)))


class _Walk:
    def __init__(self) -> None:
        self.steps: dict[Path, Step] = {}
        self.origins: list[Origin] = []
        self.gaps: list[str] = []
        self._seen: set[tuple[Path, Use]] = set()

    def visit(self, folder: Path, use: Use, made_from: Path | None = None) -> None:
        """Follow what the folder's herd.json names; `made_from` is what its publisher names beside that."""
        if (folder, use) in self._seen:
            return
        self._seen.add((folder, use))
        made = _record(folder)
        sources = len(self.origins) + len(self.gaps) + len(self._seen)
        if made_from:
            self.visit(made_from, use)
        if folder.name in ("model", "adapter") and _record(folder.parent).get("stage"):
            self.visit(folder.parent, use)
        pulled = _table(made.get(RECORD))
        ours = {} if pulled.get("repo") else made  # a pulled herd.json names places on its publisher's machine
        for name, source in _table(ours.get("inputs")).items():
            inside = isinstance(source, str) and Path(source).name == source
            how: Use = "outputs" if name == "teacher" else use
            self._follow(folder.parent / source if inside else None, str(source), how)
        for source, named in _named(ours):
            place = Path(source).expanduser()
            place = place if place.is_absolute() or place.exists() else folder.parent / place
            self._follow(place if place.is_dir() else None, source, "outputs" if use == "outputs" else named)
        if pulled.get("repo"):
            origin = Origin(
                str(pulled["repo"]), use, str(pulled.get("licence", "")), folder, str(pulled.get("commit", ""))
            )
            self.origins.append(origin)
        elif not made.get("stage") and sources == len(self.origins) + len(self.gaps) + len(self._seen):
            self.gaps.append(folder.name)
        self.steps[folder] = Step(str(made.get("stage") or folder.name), folder, made, use)

    def _follow(self, folder: Path | None, name: str, use: Use) -> None:
        if folder is not None and folder.is_dir():
            self.visit(folder.resolve(), use)
        elif folder is None and "/" in name and name.count("/") == 1 and not name.startswith((".", "/", "~")):
            self.origins.append(Origin(name, use))  # a name of the hub, not a folder here
            self.gaps.append(name)
        elif folder is None and use == "outputs":
            self.origins.append(Origin(name, use))  # a served teacher
            self.gaps.append(name)
        else:
            self.gaps.append(name)


def _record(folder: Path) -> Mapping[str, Any]:
    """A folder's herd.json; of an adapter without one, the base that peft wrote."""
    adapter = folder / "adapter_config.json"
    if (folder / "herd.json").is_file():
        return herd_json(folder)
    base = _table(read_json(adapter)).get("base_model_name_or_path") if adapter.is_file() else ""
    return {"base": base} if base else {}


def _named(made: Mapping[str, Any]) -> Iterator[tuple[str, Use]]:
    """The sources that a herd.json, or the settings in it, names by themselves."""
    for key, use in _SOURCES.items():
        value, setting = made.get(key), _table(made.get("settings")).get(key)
        if isinstance(value, Mapping):
            value = next((value[name] for name in ("folder", "model", "name") if value.get(name)), None)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one:
                yield one, use
        if isinstance(setting, str) and "/" in setting:  # other settings of these names are no places
            yield setting, use


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
