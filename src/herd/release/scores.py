"""A model's scores with their intervals, as a card shows them.

Found beside a model of a run (its `scores-*` stages), or given as a results file: herd's own or one in
lm-evaluation-harness's layout, whose intervals are 1.96 of its standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError
from herd.evaluate.harness import load_results
from herd.evaluate.suite import SuiteResult
from herd.files import read_json

_HARNESS = "lm-evaluation-harness"


@dataclass(frozen=True)
class Row:
    """One score, a fraction; `low` and `high` are None where the file gives no error."""

    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    suite: str


def scores_of(folder: Path, given: Path | None = None) -> tuple[Row, ...]:
    """The rows of `given`, else of the run that `folder` is a stage of; none where it was not measured."""
    if given:
        return read_scores(given)
    model = Path(folder).resolve()
    for file in sorted(model.parent.glob("scores-*/herd.json")):
        made = read_json(file)
        if isinstance(made, dict) and (made.get("inputs") or {}).get("model") == model.name:
            return _of_suite(load_results(file.parent))
    return ()


def read_scores(path: Path) -> tuple[Row, ...]:
    """The rows of a results file, or of the folder that holds one."""
    path = Path(path)
    # A scored model's own folder holds the probe of conversations below its results; lm-eval keeps a model's below.
    found = (sorted(path.glob("results*.json")) or sorted(path.rglob("results*.json"))) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise ArtifactError(
            f"{len(found)} results files are here" if path.is_dir() else "there is no such results file",
            where=str(path),
            mend="name one file of results with --scores",
        )
    content = read_json(found[0])
    if isinstance(content, dict) and isinstance(content.get("herd"), dict):
        return _of_suite(load_results(found[0]))
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise FormatError("not a results file of lm-evaluation-harness", where=str(found[0]))
    rows = tuple(row for task, scores in content["results"].items() for row in _of_task(task, scores, content))
    if not rows:
        raise FormatError("the results file holds no scores", where=str(found[0]))
    return rows


def _of_suite(result: SuiteResult) -> tuple[Row, ...]:
    suite, counts = f"{result.suite} {result.version}", result.counts()
    scored = {**result.by_capability(), "average": result.average}
    return tuple(
        Row(name, "exact match", one.value, one.low, one.high, counts.get(name, len(result.items)), suite)
        for name, one in scored.items()
    )


def _of_task(task: str, scores: object, content: Mapping[str, Any]) -> list[Row]:
    if not isinstance(scores, Mapping):
        return []
    rows = []
    for key, value in scores.items():
        metric, _, variant = str(key).partition(",")
        if metric.endswith("_stderr") or not variant or not isinstance(value, float | int) or isinstance(value, bool):
            continue
        error = scores.get(f"{metric}_stderr,{variant}")
        margin = 1.96 * error if isinstance(error, float | int) else None
        n = (content.get("n-samples") or {}).get(task, {}).get("effective")
        low, high = (None, None) if margin is None else (value - margin, value + margin)
        name = metric if variant == "none" else f"{metric} ({variant})"
        rows.append(Row(task, name, float(value), low, high, n if isinstance(n, int) else None, _HARNESS))
    return rows
