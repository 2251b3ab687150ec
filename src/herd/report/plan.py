"""A plan as one SVG that stands alone: the pipeline's schedule as it was played, where time goes, where memory goes.

plan_picture(job, way, step, memory) -> Html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from herd.devices import GIB
from herd.report.axes import linear_axis
from herd.report.html import Html, tag
from herd.report.numbers import measured
from herd.report.plot import series_class
from herd.report.schedule import LEFT, WIDTH, alone, lanes, lanes_height, schedule_legend
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.memory import Memory
from herd.scaling.plan.step import Step

_LETTER, _ENTRY = 6.4, 28  # pixels of a letter of the legend, and of what stands beside its words
_REST = ("bubble", "free")  # parts that are nobody's work: drawn as empty as where a rank waits
# The series of style.css.
_STYLE = """
svg { --s0: #2b6350; --s1: #b9581f; --s2: #3667a6; --s3: #86559c; --s4: #8d7013; --s5: #2f8583; --s6: #77716a; --s7: #a8416d; }
@media (prefers-color-scheme: dark) {
  svg { --s0: #74c2a2; --s1: #e99660; --s2: #84b1ea; --s3: #c49ad8; --s4: #d2b452; --s5: #6cc9c6; --s6: #a39d93; --s7: #e58db2; }
}
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
.s4 { fill: var(--s4); } .s5 { fill: var(--s5); } .s6 { fill: var(--s6); } .s7 { fill: var(--s7); }
.rest { fill: var(--wash); stroke: var(--soft); stroke-width: .5; }
.title { font-size: 14px; font-weight: 600; fill: var(--ink); }
"""  # noqa: E501
_NAMES = {
    "matmul": "matrix products",
    "elementwise": "between products",
    "tp": "tensor collectives",
    "cp": "context collectives",
    "dp": "parameters, gradients",
    "pp": "late hidden states",
}


def name_of(part: str) -> str:
    """A part of a step's time in words."""
    return _NAMES.get(part, part)


def plan_picture(job: Job, way: Way, step: Step, memory: Memory) -> Html:
    title = f"{job.gpus:,} {job.gpu.name}: {step.seconds:.2f} s a step, MFU {step.mfu:.1%}"
    parts, y = [tag("text", title, class_="title", x=0, y=18), tag("text", str(way.plan), x=0, y=38)], 54
    if way.plan.pp > 1:
        drawn, y = _pipeline(job, way, step, y)
        parts += drawn
    spent = {name_of(name): seconds for name, seconds in step.parts.items() if seconds > 0.001 * step.seconds}
    held = {field.name: getattr(memory, field.name) / GIB for field in fields(memory)}
    room = job.gpu.memory_bytes / GIB
    held["free"] = max(0.0, room - memory.total / GIB)
    for name, values, whole, unit in (("time", spent, step.seconds, "s"), ("memory", held, room, "GiB")):
        drawn, y = _bar(name, values, whole, unit, y)
        parts += drawn
    return alone(parts, y, title, _STYLE)


def _pipeline(job: Job, way: Way, step: Step, y: int) -> tuple[list[Html], int]:
    """The lanes of one pipeline over an axis of seconds; where they end."""
    schedule, end = way.schedule(job), max(one.end for one in step.timeline)
    bottom = y + lanes_height(schedule)
    ticks = [(at, text) for at, text in linear_axis("", (0.0, end)).ticks if 0 <= at <= end]
    said = f"{step.microbatches} micro-batches; at rest {step.bubble:.1%} of the time at work"
    if schedule.microbatches < step.microbatches:
        said = f"drawn: {schedule.microbatches} of {said}"
    return [
        *lanes(schedule, step.timeline, end, y),
        *(_tick(at / end, f"{text} s", bottom + 11) for at, text in ticks),
        *schedule_legend(schedule.virtual > 1, bottom + 22),
        tag("text", said, x=WIDTH, y=bottom + 33, text_anchor="end"),
    ], bottom + 56


def _tick(share: float, text: str, y: int) -> Html:
    """At its place on the axis of a pipeline; what would stand beyond the drawing ends with it."""
    x = round(LEFT + (WIDTH - LEFT) * share, 1)
    return tag("text", text, x=x, y=y, text_anchor="end" if share > 0.97 else None)


def _bar(name: str, parts: Mapping[str, float], whole: float, unit: str, y: int) -> tuple[list[Html], int]:
    """One bar cut by what takes it, with a legend under it; where they end."""
    found = [tag("text", name, x=0, y=y + 16)]
    x, scale, legend = float(LEFT), (WIDTH - LEFT) / max(whole, sum(parts.values())), list[tuple[str, str]]()
    for index, (part, value) in enumerate(parts.items()):
        style = "rest" if part in _REST else series_class(index)
        found.append(tag("rect", class_=style, x=round(x, 2), y=y, width=round(value * scale, 2), height=24))
        legend.append((style, f"{part} {measured(value)} {unit}"))
        x += value * scale
    drawn, y = _legend(legend, y + 42)
    return [*found, *drawn], y


def _legend(entries: Sequence[tuple[str, str]], y: int) -> tuple[list[Html], int]:
    found, x = list[Html](), float(LEFT)
    for style, words in entries:
        wide = _ENTRY + _LETTER * len(words)
        if x + wide > WIDTH:
            x, y = float(LEFT), y + 18
        found += [tag("rect", class_=style, x=x, y=y - 10, width=10, height=10), tag("text", words, x=x + 14, y=y)]
        x += wide
    return found, y + 20
