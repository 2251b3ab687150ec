"""`herd evaluate`: a model on a suite, as a table and, if asked, as lm-evaluation-harness result files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from herd.config import from_plain
from herd.errors import InputError
from herd.files import read_json, read_jsonl
from herd.recipe import SuiteSettings


def evaluate(model_folder: Path, tasks_file: Path | None, out: Path | None) -> int:
    from rich.console import Console
    from rich.table import Table

    from herd.evaluate.harness import RunInfo, save_results
    from herd.paddock import task_from_dict
    from herd.road.means import scores
    from herd.text import Tokenizer
    from herd.weights.hf import load_model

    path, settings = (tasks_file, SuiteSettings()) if tasks_file else _asked_before(model_folder)
    tasks = [task_from_dict(row) for row in read_jsonl(path)]
    result = scores(load_model(model_folder), Tokenizer.load(model_folder), tasks, settings)
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


def _asked_before(model_folder: Path) -> tuple[Path, SuiteSettings]:
    """The suite and the settings with which its own run scored the model; any suite of that run where it did not."""
    model = model_folder.resolve()
    for file in sorted(model.parent.glob("scores-*/herd.json"), key=_age):
        made = read_json(file)
        if made["inputs"].get("model") == model.name:
            suite = model.parent / made["inputs"]["world"] / "suite.jsonl"
            return suite, from_plain(SuiteSettings, made["settings"], str(file))
    worlds = sorted(model.parent.glob("world-*/suite.jsonl"), key=_age)
    if not worlds:
        raise InputError(
            "no suite is known for this model", where=str(model_folder), mend="name one with --tasks FILE.jsonl"
        )
    return worlds[0], SuiteSettings()


def _age(path: Path) -> float:
    return -path.stat().st_mtime
