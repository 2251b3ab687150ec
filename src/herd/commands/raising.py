"""`herd raise`: a recipe from documents to a report, or a look at what it would do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from herd.commands.launch import is_first_process, runner_of, show_plan
from herd.commands.watch import Terminal, clock
from herd.config import override, save, to_plain, unknown
from herd.devices import find_device
from herd.errors import ArtifactError, FormatError, SettingError
from herd.files import read_json
from herd.lanes import LaneRunner
from herd.recipe import Recipe
from herd.recipes import find
from herd.road.graph import Herd, herd_of
from herd.road.machine import cores
from herd.stages import Runner, Stage, link, ordered, wall_seconds
from herd.train.parallel.plan import parse_plan

_TRAINING_BYTES = 16  # a parameter: master, gradient and two moments in float32


def resolve(name: str, assignments: Sequence[str], documents: str) -> Recipe:
    """The recipe by name or file, with the command line's settings and documents in it."""
    recipe = find(name)
    if documents:
        user = str(Path(documents).resolve())
        recipe = replace(recipe, documents=replace(recipe.documents, user=user))
    return override(recipe, assignments)


def raise_herd(
    name: str, *, assignments: Sequence[str], documents: str, out: str, dry_run: bool, plan: str = "", until: str = ""
) -> int:
    recipe = resolve(name, assignments, documents)
    folder = Path(out or f"runs/{recipe.name}")
    herd, config = herd_of(recipe), recipe.flagship.shape.config(recipe.tokenizer.vocab_size)
    if dry_run:
        from herd.commands.dry_run import show

        show(recipe, herd, folder)
        if plan:
            show_plan(plan, config, recipe.flagship.pretrain)
        return 0
    if recipe.needs:
        raise SettingError(
            f"the recipe '{recipe.name}' needs {recipe.needs}",
            mend=f"look at it with: herd raise {name} --dry-run; on a laptop raise 'nano'",
        )
    laid_out = parse_plan(plan)
    laid_out.check(config)

    def alone() -> Runner:
        threads = recipe.threads or cores() or 1
        _prepare_threads(threads)
        device = find_device(recipe.device, needs=_TRAINING_BYTES * config.parameters(), say=print)
        return LaneRunner(folder, watch, threads=threads, device=str(device))

    watch = Terminal()
    stages = _until(herd, until)
    with _made_anew(folder / "stages"), runner_of(laid_out, folder, watch, recipe.device, alone) as runner:
        try:
            runner.run(stages, prepare=lambda: save(folder / "recipe.json", to_plain(recipe)))
        finally:
            watch.close()
        if is_first_process():
            publish(herd, runner, folder)
            if not until:
                _tell(herd, runner, folder)
    return 0


def _until(herd: Herd, name: str) -> Sequence[Stage]:
    """The stages that the model or stage `name` needs, and itself; all of them without a name."""
    if not name:
        return herd.stages
    by_name = {stage.name: stage for stage in ordered(herd.stages)} | dict(herd.names)
    if name not in by_name:
        raise unknown(name, by_name, "a stage of this recipe")
    return [by_name[name]]


@contextmanager
def _made_anew(stages: Path) -> Iterator[None]:
    """What is damaged inside a finished stage is mended in one way, whichever room finds it."""
    try:
        yield
    except (ArtifactError, FormatError) as error:
        place = Path(error.where)
        if place.is_relative_to(stages) and place != stages:
            stage = stages / place.relative_to(stages).parts[0]
            error.mend = f"remove {stage} and run the same command again: it is made anew"
        raise


def publish(herd: Herd, runner: Runner, folder: Path) -> None:
    """Friendly names for the models and the report."""
    for name, stage in herd.names.items():
        if not runner.finished(stage):  # of a run that ended earlier, by --until
            continue
        link(folder, name, runner.path(stage))
    for file in ("report.html", "claims.json", "report.json"):
        if (runner.path(herd.summary) / file).exists():
            link(folder, file, runner.path(herd.summary) / file)


def _prepare_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _tell(herd: Herd, runner: Runner, folder: Path) -> None:
    seconds = wall_seconds(read_json(runner.path(stage) / "herd.json") for stage in herd.stages)
    claims = folder / "claims.json"
    print()
    if claims.exists():
        rows = read_json(claims)
        failed = [row["name"] for row in rows if not row["holds"]]
        print(
            f"{len(rows) - len(failed)} of {len(rows)} claims hold" + (f"; NOT: {', '.join(failed)}" if failed else "")
        )
    print(f"report   {folder / 'report.html'}   (all stages: {clock(seconds)})")
    if "flagship" in herd.names:
        print(f"next     herd chat {folder / 'flagship'}")
    sys.stdout.flush()
