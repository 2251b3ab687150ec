"""A plan as one SVG: the pipeline's schedule as it was played, where memory goes, where time goes.

    picture(job, way, step, memory) -> str

Forwards are blue and backwards orange, lighter the later the stage of a rank; what is left free is waiting. Rectangles
of one colour are one path in whole pixels, so that thousands of them stay small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape

from herd.scaling.plan.hardware import GIB
from herd.scaling.plan.job import Job, Way
from herd.scaling.plan.memory import Memory
from herd.scaling.plan.step import Step

_WIDTH, _LEFT, _RIGHT = 1100, 70, 20
_LINE = 14  # height of a rank
_BLUE, _ORANGE = (31, 90, 166), (214, 110, 20)
_COLOURS = (
    "#1f5aa6",
    "#d66e14",
    "#2d8659",
    "#8a4fa3",
    "#b8a100",
    "#7a7a7a",
    "#c2477d",
    "#4aa3c7",
    "#5b4636",
    "#cccccc",
)
_NAMES = {
    "matmul": "matrix products",
    "attention": "attention",
    "elementwise": "between products",
    "tp": "tensor collectives",
    "cp": "context collectives",
    "dp": "parameters, gradients",
    "pp": "late hidden states",
    "bubble": "bubble",
    "optimiser": "optimiser",
}


def name_of(part: str) -> str:
    """A part of a step's time in words."""
    return _NAMES.get(part, part)


def picture(job: Job, way: Way, step: Step, memory: Memory) -> str:
    body: list[str] = []
    y = 30
    title = f"{job.gpus:,} {job.gpu.name}, {way.plan}: {step.seconds:.2f} s a step, MFU {step.mfu:.1%}"
    body.append(_text(_LEFT, y, title, 15, weight="bold"))
    y += 26
    if way.plan.pp > 1:
        y = _schedule(body, way, step, y)
    parts = {name_of(name): seconds for name, seconds in step.parts.items() if seconds > 0.001 * step.seconds}
    y = _bar(body, y + 12, "time", parts, step.seconds, "s")
    held = {field.name: getattr(memory, field.name) / GIB for field in fields(memory)}
    held["free"] = max(0.0, job.gpu.memory_bytes / GIB - memory.total / GIB)
    y = _bar(body, y + 18, "memory", held, job.gpu.memory_bytes / GIB, "GiB")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def _schedule(body: list[str], way: Way, step: Step, y: int) -> int:
    """A line for each rank of one pipeline; returns where it ends."""
    ranks, virtual = way.plan.pp, way.plan.virtual
    end = max(one.end for one in step.timeline)
    scale = (_WIDTH - _LEFT - _RIGHT) / end
    paths: dict[str, list[str]] = defaultdict(list)
    for one in step.timeline:
        left, right = round(_LEFT + one.start * scale), round(_LEFT + one.end * scale)
        colour = _shade(one.action.kind == "forward", one.action.stage // ranks, virtual)
        paths[colour].append(
            f"M{left} {y + one.rank * _LINE}h{max(1, right - left)}v{_LINE - 2}h-{max(1, right - left)}z"
        )
    bottom = y + ranks * _LINE
    body.append(
        f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - _RIGHT}" height="{ranks * _LINE - 2}" fill="#f4f4f4"/>'
    )
    body += [f'<path fill="{colour}" d="{"".join(shapes)}"/>' for colour, shapes in paths.items()]
    labels = range(ranks) if ranks <= 16 else range(0, ranks, 4)
    body += [_text(_LEFT - 8, y + rank * _LINE + 10, f"rank {rank}", 10, anchor="end") for rank in labels]
    body += _axis(bottom, end)
    stages = f"{virtual} stage{'s' * (virtual > 1)} a rank"
    said = f"{step.microbatches} micro-batches, {stages}; at rest {step.bubble:.1%} of the time at work"
    body.append(_text(_WIDTH - _RIGHT, bottom + 30, said, 11, anchor="end"))
    for x, colour, word in ((0, _shade(True, 0, 1), "forward"), (80, _shade(False, 0, 1), "backward")):
        body.append(f'<rect x="{_LEFT + x}" y="{bottom + 21}" width="10" height="10" fill="{colour}"/>')
        body.append(_text(_LEFT + x + 14, bottom + 30, word, 11))
    return bottom + 40


def _axis(y: int, end: float) -> list[str]:
    found = []
    for tick in range(6):
        x = _LEFT + round((_WIDTH - _LEFT - _RIGHT) * tick / 5)
        anchor = "end" if tick == 5 else "middle"
        found.append(_text(x, y + 12, f"{end * tick / 5:.2f} s", 10, anchor=anchor))
    return found


def _bar(body: list[str], y: int, name: str, parts: Mapping[str, float], whole: float, unit: str) -> int:
    """One bar cut by what takes it, with a legend under it; returns where it ends."""
    body.append(_text(_LEFT - 8, y + 16, name, 11, anchor="end"))
    x, scale = float(_LEFT), (_WIDTH - _LEFT - _RIGHT) / max(whole, sum(parts.values()))
    legend: list[tuple[str, str]] = []
    for index, (part, value) in enumerate(parts.items()):
        colour = "#eeeeee" if part == "free" else _COLOURS[index % len(_COLOURS)]
        body.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="24" fill="{colour}"/>')
        x += value * scale
        legend.append((colour, f"{part} {_short(value)} {unit}"))
    return _legend(body, y + 40, legend)


def _legend(body: list[str], y: int, entries: Sequence[tuple[str, str]]) -> int:
    x = _LEFT
    for colour, words in entries:
        width = 24 + round(6.3 * len(words))
        if x + width > _WIDTH - _RIGHT:
            x, y = _LEFT, y + 18
        body.append(
            f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}" stroke="#bbb" stroke-width=".5"/>'
        )
        body.append(_text(x + 14, y, words, 11))
        x += width
    return y + 14


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _shade(forward: bool, stage: int, virtual: int) -> str:
    """Lighter for later stages of a rank."""
    light = 0.55 * stage / max(1, virtual - 1) if virtual > 1 else 0.0
    red, green, blue = (round(part + (255 - part) * light) for part in (_BLUE if forward else _ORANGE))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _text(x: float, y: float, words: str, size: int, anchor: str = "start", weight: str = "normal") -> str:
    bold = f' font-weight="{weight}"' if weight != "normal" else ""
    middle = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="#222"{middle}{bold}>{escape(words)}</text>'
