"""Section 1: the machine, the time, and where to read on."""

from __future__ import annotations

from herd.report.data import Machine, RunFacts
from herd.report.html import Child, Html, tag
from herd.report.numbers import count, finite, percent, seconds, size
from herd.report.parts import bar, facts, figure, section, table


def run_section(run: RunFacts | None) -> Html:
    lead = "What ran, on what, and how long each stage took."
    if run is None:
        return section("run", "The run", lead)
    return section("run", "The run", lead, _facts(run), _stages(run))


def _facts(run: RunFacts) -> Html | None:
    version = " ".join(part for part in (run.herd_version, f"(git {run.git})" if run.git else "") if part)
    return facts(
        [
            ("Date", run.date),
            ("Machine", _machine(run.machine)),
            ("Torch", run.machine.torch),
            ("Herd", version),
            ("Recipe, resolved", tag("code", run.recipe_path) if run.recipe_path else None),
            ("Time in all", seconds(run.seconds)),
        ]
    )


def _machine(machine: Machine) -> str:
    parts = [
        machine.cpu,
        f"{count(machine.cores)} core{'' if machine.cores == 1 else 's'}" if machine.cores is not None else "",
        f"{size(machine.memory_bytes)} of memory" if machine.memory_bytes is not None else "",
        machine.accelerator,
    ]
    return ", ".join(part for part in parts if part)


def _stages(run: RunFacts) -> Html | None:
    if not run.stages:
        return None
    times = [finite(stage.seconds) or 0.0 for stage in run.stages]
    longest, total = max(times) or 1.0, sum(times) or 1.0
    noted = any(stage.note for stage in run.stages)
    head = ("Stage", "Time", "Share", "", "Note") if noted else ("Stage", "Time", "Share", "")
    rows: list[list[Child]] = []
    for stage, time in zip(run.stages, times, strict=True):
        row: list[Child] = [stage.name, seconds(stage.seconds), percent(time / total, 0), bar(time / longest)]
        rows.append([*row, stage.note] if noted else row)
    caption = "Stages in the order in which they ran; a bar is relative to the longest."
    return figure(caption, table("Time by stage", head, rows, numeric=(1, 2), class_="bars"))
