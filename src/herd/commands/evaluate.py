"""`herd evaluate`: a model on a suite, as a table and, if asked, as lm-evaluation-harness result files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from herd.errors import InputError


def evaluate(model_folder: Path, tasks_file: Path | None, out: Path | None) -> int:
    from rich.console import Console
    from rich.table import Table

    from herd.evaluate.harness import RunInfo, save_results
    from herd.files import read_jsonl
    from herd.paddock import task_from_dict
    from herd.recipe import SuiteSettings
    from herd.road.means import scores
    from herd.text import Tokenizer
    from herd.weights.hf import load_model

    path = tasks_file or _suite_of(model_folder)
    tasks = [task_from_dict(row) for row in read_jsonl(path)]
    result = scores(load_model(model_folder), Tokenizer.load(model_folder), tasks, SuiteSettings())
    table = Table(title=f"{model_folder} on {path}")
    for name in ("capability", "score", "95 % interval", "items"):
        table.add_column(name, justify="left" if name == "capability" else "right")
    counts = result.counts()
    rows = [*result.by_capability().items(), ("average", result.average)]
    for name, score in rows:
        table.add_row(name, f"{score.value:.1%}", f"{score.low:.1%} to {score.high:.1%}", str(counts.get(name, "")))
    Console().print(table)
    if out:
        print(save_results(out, result, RunInfo(model=str(model_folder), date=datetime.now(UTC))))
    return 0


def _suite_of(model_folder: Path) -> Path:
    """The held-out suite of the run that made the model: its world stands beside the model's stage."""
    stages = model_folder.resolve().parent
    found = sorted(stages.glob("world-*/suite.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            "no suite is known for this model", where=str(model_folder), mend="name one with --tasks FILE.jsonl"
        )
    return found[-1]
