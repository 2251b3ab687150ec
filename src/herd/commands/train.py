"""`herd train`: fine-tune an adopted model on a dataset, or a look at what that would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from herd.commands.launch import is_first_process, runner_of, show_plan
from herd.commands.watch import Terminal, clock
from herd.config import load, override, save, to_plain
from herd.devices import find_device
from herd.errors import SettingError
from herd.evaluate.statistics import wilson
from herd.files import read_json
from herd.posttrain.adoption import Adoption, TeacherSettings
from herd.recipes.adopt import find_adoption, in_full
from herd.road.adopt.graph import stages_of
from herd.road.machine import cores
from herd.stages import Runner, Stage, link
from herd.train.parallel.plan import parse_plan

_MOVED = 0.002  # a fall of the held-out loss by less than this share of it is none


@dataclass(frozen=True)
class Asked:
    """The command line."""

    recipe: str
    model: Path
    data: Path
    out: str = ""
    assignments: Sequence[str] = ()
    full: bool = False
    base: str = ""
    device: str = ""
    teacher: str = ""
    teacher_model: str = ""
    columns: Sequence[str] = field(default_factory=tuple)
    plan: str = ""


def resolve(asked: Asked) -> Adoption:
    """The recipe with the command line in it. A saved recipe.json is a recipe too."""
    is_file = asked.recipe.endswith(".json") or "/" in asked.recipe
    adoption = load(Path(asked.recipe), Adoption) if is_file else find_adoption(asked.recipe)
    if asked.full:
        adoption = in_full(adoption)
    if asked.base:
        adoption = override(adoption, [f"base={asked.base}"])
    if asked.device:
        adoption = replace(adoption, device=asked.device)
    if asked.teacher or asked.teacher_model:
        adoption = _with_teacher(adoption, asked.teacher, asked.teacher_model)
    if asked.columns:
        pairs = [text.partition("=") for text in asked.columns]
        if not all(ours and theirs for ours, _, theirs in pairs):
            raise SettingError(f"cannot read {list(asked.columns)}", where="--columns", mend="write OURS=THEIRS")
        adoption = replace(adoption, columns={ours: theirs for ours, _, theirs in pairs})
    adoption = override(adoption, asked.assignments)
    teacher = adoption.teacher
    if teacher and not teacher.folder and not (teacher.endpoint.url and teacher.endpoint.model):
        raise SettingError(
            "there is no teacher",
            where="teacher",
            mend="give --teacher URL --teacher-model NAME of a server, or --teacher FOLDER of a model of one tokenizer",
        )
    return adoption


def _with_teacher(adoption: Adoption, place: str, name: str) -> Adoption:
    teacher = adoption.teacher
    if teacher is None:
        raise SettingError(f"'{adoption.name}' has no teacher", where="--teacher", mend="train adopt-distil")
    if place and not place.startswith(("http://", "https://")):
        return replace(adoption, teacher=replace(teacher, folder=place))
    endpoint = replace(teacher.endpoint, url=place or teacher.endpoint.url, model=name or teacher.endpoint.model)
    changed: TeacherSettings = replace(teacher, endpoint=endpoint)
    return replace(adoption, teacher=changed)


def train_adopted(asked: Asked, dry_run: bool) -> int:
    adoption = resolve(asked)
    stages = stages_of(adoption, asked.model, asked.data)
    folder = Path(asked.out or f"runs/{adoption.name}")
    if dry_run:
        return _show(adoption, asked, folder, stages)
    import torch

    from herd.road.adopt.model import least_bytes
    from herd.weights.hf import load_config

    config = load_config(asked.model)
    plan = parse_plan(asked.plan)
    plan.check(config, adoption.train)

    def alone() -> Runner:
        torch.set_num_threads(adoption.threads or cores() or 1)
        device = find_device(adoption.device, needs=least_bytes(adoption, config), say=print)
        return Runner(folder, watch, device=str(device))

    watch = Terminal()
    with runner_of(plan, folder, watch, adoption.device, alone) as runner:
        try:
            runner.run(stages, prepare=lambda: save(folder / "recipe.json", to_plain(adoption)))
        finally:
            watch.close()
    if is_first_process():
        _publish(runner, stages[-1], folder)
    return 0


def _publish(runner: Runner, stage: Stage, folder: Path) -> None:
    """Friendly names for what was made, and what to do with it."""
    made = runner.path(stage)
    for name in ("adapter", "model", "history.jsonl"):
        if (made / name).exists():
            link(folder, name, made / name)
        elif (folder / name).is_symlink():  # of an earlier run with other settings
            (folder / name).unlink()
    facts = read_json(made / "herd.json")["metrics"]
    print(f"\nloss {facts['first_loss']:.3f} -> {facts['last_loss']:.3f} in {clock(facts['seconds'])}")
    for name, value in facts["metrics"].items():
        if name.startswith("held_out"):
            first = f"{facts['before'][name]:.4g} -> " if name in facts["before"] else ""
            print(f"{name.replace('_', ' ')} {first}{value:.4g}{_spread(name, value, facts)}")
    _say_if_still(facts)
    if (made / "adapter").exists():
        print(f"adapter  {folder / 'adapter'}   (the layout of peft)")
    if (made / "model").exists():
        print(f"model    {folder / 'model'}")
    if (made / "model").exists() and facts["objective"] != "reward":
        print(f"next     herd chat {folder / 'model'}")


def _spread(name: str, value: float, facts: Mapping[str, Any]) -> str:
    """How sure an accuracy is: a few held-out pairs say little."""
    count = facts.get("held_out_items", 0)
    if name != "held_out_accuracy" or not count:
        return ""
    interval = wilson(round(value * count), count)
    return f"   ({interval.low:.3f} to {interval.high:.3f} at 95 %, of {count:,} pairs)"


def _say_if_still(facts: Mapping[str, Any]) -> None:
    """A training that changed nothing must not look like one that did."""
    before, after = facts["before"].get("held_out_loss"), facts["metrics"].get("held_out_loss")
    if before is not None and after is not None and after > before * (1 - _MOVED):
        print(
            f"note     the held-out loss did not fall ({before:.4g} -> {after:.4g}): raise train.peak_lr or max_epochs "
            "if the training loss did not fall either, lower them if it did"
        )


def _show(adoption: Adoption, asked: Asked, folder: Path, stages: Sequence[Stage]) -> int:
    """What would be read and learnt; opens the data and the tokenizer, not the weights."""
    from herd.road.adopt.preview import preview

    for line in preview(adoption, asked.model, asked.data):
        print(line)
    for stage in stages:
        found = Runner(folder).finished(stage)
        print(f"stage    {stage.folder}{'   (done)' if found else ''}")
    print(f"out      {folder}")
    if asked.plan:
        from herd.weights.hf import load_config

        show_plan(asked.plan, load_config(asked.model), [adoption.train])
    return 0
