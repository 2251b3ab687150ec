"""The report's sections on pre-training and on the scaling law."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from herd.files import read_jsonl
from herd.report.data import IsoFlopCurve, LossCurve, Scaling, ScalingPoint
from herd.road.summary.folders import Folders

LADDER = "ladder-"
MOST_POINTS = 2000  # of a curve; the chart shows a few hundred, and report.json should stay small


def training(folders: Folders) -> tuple[LossCurve, ...]:
    """The family's curves, each over all its phases, then the rungs of the ladder."""
    family = [_family_curve(folders, name) for name in ("flagship", "small") if f"{name}-base" in folders]
    return (*family, *(_curve(folders, name, (name,), rung=True) for name in rungs(folders)))


def rungs(folders: Folders) -> list[str]:
    return [name for name in folders.paths if name.startswith(LADDER)]


def phases(folders: Folders, model: str) -> tuple[str, ...]:
    """The stages of a model's pre-training in their order."""
    early = [name for name in folders.paths if name.startswith(f"{model}-phase-")]
    last = (f"{model}-base",) if f"{model}-base" in folders else ()
    return (*sorted(early, key=lambda name: int(name.rpartition("-")[2])), *last)


def pretrained_tokens(folders: Folders, model: str) -> int | None:
    """Tokens that a model saw in pre-training, all phases together."""
    counts = [folders.metrics(name).get("tokens") for name in phases(folders, model)]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _family_curve(folders: Folders, name: str) -> LossCurve:
    return _curve(folders, name, phases(folders, name), rung=False)


def _curve(folders: Folders, label: str, stages: Sequence[str], rung: bool) -> LossCurve:
    points: list[tuple[float, float, float]] = []
    held_out: list[tuple[float, float]] = []
    before, seconds = 0.0, 0.0
    metrics: Mapping[str, Any] = {}
    for stage in stages:
        metrics = folders.metrics(stage)
        for row in _history(folders, stage):
            points.append((before + row["tokens"], row["loss"], row["lr"]))
            if "validation_loss" in row["metrics"]:
                held_out.append((before + row["tokens"], row["metrics"]["validation_loss"]))
        before += metrics.get("tokens", 0)
        seconds += metrics.get("train_seconds", 0.0)
        if "validation_loss" in metrics:
            held_out.append((before, metrics["validation_loss"]))
    points = thinned(points)
    return LossCurve(
        model=label,
        rung=rung,
        tokens=tuple(tokens for tokens, _, _ in points),
        loss=tuple(loss for _, loss, _ in points),
        learning_rate=tuple(rate for _, _, rate in points),
        validation_tokens=tuple(tokens for tokens, _ in held_out),
        validation_loss=tuple(loss for _, loss in held_out),
        parameters=metrics.get("parameters"),
        tokens_per_second=before / seconds if seconds else metrics.get("tokens_per_second"),
        seconds=seconds or None,
    )


def _history(folders: Folders, stage: str) -> list[Mapping[str, Any]]:
    path = folders.paths[stage] / "history.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def thinned(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """At most `MOST_POINTS` of them at equal steps, the last one always there."""
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    return [point for index, point in enumerate(points) if (len(points) - 1 - index) % stride == 0]


def scaling(folders: Folders, allowed: float) -> Scaling | None:
    """The fitted law and its prediction beside what was reached; a refused fit says why."""
    forecast = folders.json("forecast", "forecast.json")
    if forecast is None:
        return None
    reached = reached_loss(folders)
    if "refused" in forecast:
        return Scaling(reached=reached, allowed=allowed, refused=f"{forecast['refused']}; {forecast.get('mend', '')}")
    predicted = forecast["predicted"]
    return Scaling(
        curves=tuple(_isoflop(curve) for curve in forecast.get("curves", ())),
        flops=forecast["asked"]["flops"],
        predicted=predicted["value"],
        low=predicted["low"],
        high=predicted["high"],
        reached=reached,
        error=relative_error(predicted["value"], reached),
        allowed=allowed,
        law=forecast.get("formula", ""),
    )


def reached_loss(folders: Folders) -> float | None:
    """The flagship's held-out loss at the end of pre-training, nats per token."""
    loss = folders.metrics("flagship-base").get("validation_loss")
    return None if loss is None else float(loss)


def relative_error(predicted: float, reached: float | None) -> float | None:
    """|predicted - reached| / reached; None where either is not a number."""
    if reached is None or not math.isfinite(reached) or not math.isfinite(predicted) or reached <= 0:
        return None
    return abs(predicted - reached) / reached


def _isoflop(curve: Mapping[str, Any]) -> IsoFlopCurve:
    minimum = curve["minimum"]
    return IsoFlopCurve(
        curve["flops"],
        tuple(_point(point) for point in curve["runs"]),
        tuple(_point(point) for point in curve["fit"]),
        None if minimum is None else _point(minimum),
    )


def _point(point: Mapping[str, float]) -> ScalingPoint:
    return ScalingPoint(point["n_params"], point["loss"], point["tokens"])
