"""`herd evaluate`: a model on a suite, as a table and, if asked, as lm-evaluation-harness result files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from herd.commands.telling import tell
from herd.config import from_plain
from herd.errors import FormatError, InputError
from herd.files import read_json, read_jsonl
from herd.paddock import Task, task_from_dict
from herd.recipe import SuiteSettings


def evaluate(model_folder: Path, tasks_file: Path | None, out: Path | None, device: str = "auto") -> int:
    from rich.console import Console
    from rich.table import Table

    from herd.evaluate.harness import RunInfo, save_results
    from herd.road.means import scores
    from herd.weights.build import open_for_use

    said: list[str] = []
    model, tokenizer = open_for_use(model_folder, device, said.append)
    if tokenizer.foreign_format:
        tell(tokenizer.foreign_format.told())
    path, settings = _suite(model_folder, tasks_file)
    result = scores(model, tokenizer, _tasks(path), settings)
    table = Table(title=f"{model_folder} on {path}", caption="\n".join(said))
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


def suite_for(model_folder: Path, tasks_file: Path | None) -> tuple[list[Task], SuiteSettings]:
    """The tasks of a file, or those of the run that the model is from; and how they are asked."""
    path, settings = _suite(model_folder, tasks_file)
    return _tasks(path), settings


def _suite(model_folder: Path, tasks_file: Path | None) -> tuple[Path, SuiteSettings]:
    return (tasks_file, SuiteSettings()) if tasks_file else _asked_before(model_folder)


def _tasks(path: Path) -> list[Task]:
    """The tasks of a file of JSON lines; a row that is none is named."""
    tasks = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            tasks.append(task_from_dict(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"task {number} is malformed: {error!r}",
                where=str(path),
                mend="hand in tasks as herd writes them: see suite.jsonl in the stage 'world' of a run",
            ) from error
    if not tasks:
        raise InputError("the file holds no tasks", where=str(path), mend="name another with --tasks FILE.jsonl")
    return tasks


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
