"""The schedule of a pipeline as a picture: a lane for each rank, a box for each action, empty where the rank waits.

One SVG that stands alone (it brings its few colours, light and dark). `plan.py` puts the same lanes over what a plan
costs. Boxes that are too narrow for their number are one path for each kind and depth: thousands of them stay small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from herd.report.html import Html, tag
from herd.train.parallel.play import Played, bubble
from herd.train.parallel.schedule import Schedule

WIDTH, LEFT = 960, 56
_TOP = 30
_LEAST_LABEL = 11  # pixels of a box that take its number
STYLE = """
svg { --paper: #fcfbf8; --ink: #22211e; --soft: #5d5952; --wash: #f4f1ea; --forward: #3667a6; --backward: #b9581f; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #151719; --ink: #e7e3da; --soft: #a9a49a; --wash: #212427; --forward: #84b1ea; --backward: #e99660; }
}
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--soft); }
.paper { fill: var(--paper); } .lane { fill: var(--wash); }
.forward { fill: var(--forward); } .backward { fill: var(--backward); }
.number { font-size: 10px; fill: var(--ink); text-anchor: middle; }
"""


def schedule_picture(drawings: Sequence[tuple[Schedule, Sequence[Played], str]], description: str = "") -> Html:
    """Schedules as they were played (`play.played`), with their names, one under the other on one scale of time.

    The numbers in the boxes are micro-batches; a rank's later stages are darker. `description` is for screen readers.
    """
    longest = max(one.end for _, timeline, _ in drawings for one in timeline)
    y, parts = _TOP, list[Html]()
    for schedule, timeline, name in drawings:
        if name:
            rest = f"{100 * bubble(list(timeline), schedule.pp):.1f} % of the working time at rest"
            parts.append(tag("text", f"{name}: {rest}", x=0, y=y + 12))
            y += 22
        parts += lanes(schedule, timeline, longest, y)
        y += lanes_height(schedule) + 18
    parts = [*schedule_legend(any(schedule.virtual > 1 for schedule, _, _ in drawings), 5), *parts]
    description = description or "Schedules of pipelines: " + "; ".join(name for _, _, name in drawings)
    return alone(parts, y - 10, description)


def alone(parts: Sequence[Html], height: int, description: str, style: str = "") -> Html:
    """A drawing that needs no page around it; `style` are colours beyond those of schedules."""
    return tag(
        "svg",
        tag("style", STYLE + style),
        tag("rect", class_="paper", width="100%", height="100%"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"-8 0 {WIDTH + 16} {height}",
        role="img",
        aria_label=description,
    )


def lanes_height(schedule: Schedule) -> int:
    return schedule.pp * _lane(schedule)


def _lane(schedule: Schedule) -> int:
    return 26 if schedule.pp <= 8 else 16


def lanes(schedule: Schedule, timeline: Sequence[Played], longest: float, top: int) -> list[Html]:
    """A lane for each rank from `top` on, where `longest` seconds are the whole width."""
    found, lane, scale = list[Html](), _lane(schedule), (WIDTH - LEFT) / longest
    for rank in range(schedule.pp):
        y, high = top + rank * lane, lane - 4
        mine = [one for one in timeline if one.rank == rank]
        found.append(tag("text", f"rank {rank}", x=0, y=y + high // 2 + 4))
        found.append(tag("rect", class_="lane", x=LEFT, y=y, width=WIDTH - LEFT, height=high))
        found += [_box(schedule, one, scale, y, high) for one in mine if not _narrow(one, scale)]
        found += _narrow_boxes(schedule, [one for one in mine if _narrow(one, scale)], scale, y, high)
    return found


def _narrow(one: Played, scale: float) -> bool:
    return (one.end - one.start) * scale < _LEAST_LABEL


def _opacity(schedule: Schedule, one: Played) -> float:
    """Darker for later stages of a rank."""
    return round(0.28 + 0.37 * (one.action.stage // schedule.pp) / max(1, schedule.virtual - 1), 3)


def _narrow_boxes(schedule: Schedule, boxes: Sequence[Played], scale: float, y: int, high: int) -> list[Html]:
    paths: dict[tuple[str, float], list[str]] = defaultdict(list)
    for one in boxes:
        wide = (one.end - one.start) * scale
        wide -= min(1, wide / 4)
        shape = f"M{LEFT + one.start * scale:.1f} {y}h{wide:.1f}v{high}h-{wide:.1f}z"
        paths[one.action.kind, _opacity(schedule, one)].append(shape)
    return [tag("path", class_=kind, fill_opacity=opacity, d="".join(d)) for (kind, opacity), d in paths.items()]


def _box(schedule: Schedule, one: Played, scale: float, y: int, high: int) -> Html:
    action, x, wide = one.action, LEFT + one.start * scale, (one.end - one.start) * scale
    title = f"{action.kind} of micro-batch {action.microbatch}, stage {action.stage}"
    box = tag(
        "rect",
        tag("title", title),
        class_=action.kind,
        x=round(x, 2),
        y=y,
        width=round(max(wide - 1, wide / 2), 2),
        height=high,
        fill_opacity=_opacity(schedule, one),
    )
    return tag("g", box, tag("text", str(action.microbatch), class_="number", x=round(x + wide / 2, 2), y=y + 15))


def schedule_legend(interleaved: bool, y: int) -> list[Html]:
    """What the colours of boxes mean, in a line from `y` on."""
    found, x = [], float(LEFT)
    for kind in ("forward", "backward"):
        found.append(tag("rect", class_=kind, x=x, y=y, width=14, height=14, fill_opacity=0.28))
        if interleaved:
            found.append(tag("rect", class_=kind, x=x + 16, y=y, width=14, height=14, fill_opacity=0.65))
        x += 36 if interleaved else 20
        words = f"{kind}, a rank's first to last stage" if interleaved else kind
        found.append(tag("text", words, x=x, y=y + 11))
        x += 7 * len(words) + 24
    return found
