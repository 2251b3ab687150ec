"""The report's facts about the run: machine, times, the family, and which artifact was made from which."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from herd import __version__
from herd.report.data import LineageNode, ModelCard, RunFacts, Score, StageTime
from herd.road.gates import GateLog
from herd.road.machine import machine, source_version
from herd.road.summary.folders import Folders, as_score, model_bytes
from herd.road.summary.training import pretrained_tokens
from herd.stages import wall_seconds

DOCUMENTS = ("world", "documents", "corpus")


def at_gates(stage: Path) -> str:
    """What was seen at the gates of a long-context stage, in words; nothing for other stages."""
    verdicts = GateLog(stage / "gates.json").verdicts
    return f"gates: {verdicts[-1].told()}" if verdicts else ""


def run_facts(folders: Folders) -> RunFacts:
    """Times are each stage's own, kills and resumes included; a stage that was found done counts what it once took."""
    times = [StageTime(name, folders.made(name).get("seconds"), at_gates(path)) for name, path in folders.paths.items()]
    spent = wall_seconds(folders.made(name) for name in folders.paths)
    talks = folders.flagship in folders
    return RunFacts(
        date=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        machine=machine(),
        seconds=spent or None,
        next_command=f"herd chat {folders.home}/flagship" if talks else "",
        herd_version=__version__,
        git=source_version(),
        recipe_path=f"{folders.home}/recipe.json",
        stages=tuple(times),
    )


def models(folders: Folders) -> tuple[ModelCard, ...]:
    """The family as it is released: each name stands for a folder beside the report."""
    family = (
        ("flagship", "flagship", folders.flagship, "flagship"),
        ("flagship-fp8", "flagship in FP8", "flagship-fp8", "flagship"),
        ("small", "small, taught by the flagship", "small-taught", "small"),
        ("small-alone", "small, for comparison", "small-alone", "small"),
    )
    return tuple(_card(folders, *member) for member in family if member[2] in folders)


def _card(folders: Folders, name: str, role: str, stage: str, base: str) -> ModelCard:
    return ModelCard(
        name=name,
        role=role,
        parameters=folders.metrics(f"{base}-base").get("parameters"),
        tokens=pretrained_tokens(folders, base),
        bytes=model_bytes(folders.paths[stage]),
        folder=f"{folders.home}/{name}",
        score=_average(folders, stage),
    )


def _average(folders: Folders, stage: str) -> Score | None:
    result = folders.results.get(stage)
    return None if result is None else as_score(result.average, len(result.items))


def lineage(folders: Folders) -> tuple[LineageNode, ...]:
    """Every stage as a node; what it read is what its herd.json says it read."""
    return tuple(_node(folders, name) for name in folders.paths)


def _node(folders: Folders, name: str) -> LineageNode:
    made = folders.made(name)
    return LineageNode(
        id=folders.paths[name].name,
        label=name,
        kind=_kind(folders, name),
        hash=made.get("key", ""),
        inputs=tuple(dict.fromkeys(made.get("inputs", {}).values())),
    )


def _kind(folders: Folders, name: str) -> str:
    if name in DOCUMENTS:
        return "documents"
    return "model" if (folders.paths[name] / "config.json").is_file() else "stage"
