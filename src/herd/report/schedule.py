"""The schedule of a pipeline as a picture: a lane for each rank, a box for each action, empty where the rank waits.

One SVG that stands alone (it brings its few colours, light and dark), so that a page of the documentation, a report and
`herd plan` show the same drawing.
"""

from __future__ import annotations

from collections.abc import Sequence

from herd.report.html import Html, tag
from herd.train.parallel.play import Played, bubble
from herd.train.parallel.schedule import Schedule

_WIDTH, _LANE, _LEFT, _TOP = 960, 26, 56, 30
_LEAST_LABEL = 11  # pixels of a box that take its number
_STYLE = """
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
    scale, y, parts = (_WIDTH - _LEFT) / longest, _TOP, list[Html]()
    for schedule, timeline, name in drawings:
        if name:
            rest = f"{100 * bubble(list(timeline), schedule.pp):.1f} % of the working time at rest"
            parts.append(tag("text", f"{name}: {rest}", x=0, y=y + 12))
            y += 22
        parts += _lanes(schedule, timeline, scale, y)
        y += schedule.pp * _LANE + 18
    height = y - 10
    return tag(
        "svg",
        tag("style", _STYLE),
        tag("rect", class_="paper", width="100%", height="100%"),
        *_legend(any(schedule.virtual > 1 for schedule, _, _ in drawings)),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"-8 0 {_WIDTH + 16} {height}",
        role="img",
        aria_label=description or "Schedules of pipelines: " + "; ".join(name for _, _, name in drawings),
    )


def _lanes(schedule: Schedule, timeline: Sequence[Played], scale: float, top: int) -> list[Html]:
    found = []
    for rank in range(schedule.pp):
        y, high = top + rank * _LANE, _LANE - 4
        found.append(tag("text", f"rank {rank}", x=0, y=y + 15))
        found.append(tag("rect", class_="lane", x=_LEFT, y=y, width=_WIDTH - _LEFT, height=high))
        found += [_box(schedule, one, scale, y, high) for one in timeline if one.rank == rank]
    return found


def _box(schedule: Schedule, one: Played, scale: float, y: int, high: int) -> Html:
    action, x, wide = one.action, _LEFT + one.start * scale, (one.end - one.start) * scale
    depth = action.stage // schedule.pp / max(1, schedule.virtual - 1)
    title = f"{action.kind} of micro-batch {action.microbatch}, stage {action.stage}"
    box = tag(
        "rect",
        tag("title", title),
        class_=action.kind,
        x=round(x, 2),
        y=y,
        width=round(max(wide - 1, wide / 2), 2),
        height=high,
        fill_opacity=round(0.28 + 0.37 * depth, 3),
    )
    if wide < _LEAST_LABEL:
        return box
    return tag("g", box, tag("text", str(action.microbatch), class_="number", x=round(x + wide / 2, 2), y=y + 15))


def _legend(interleaved: bool) -> list[Html]:
    found, x = [], float(_LEFT)
    for kind in ("forward", "backward"):
        found.append(tag("rect", class_=kind, x=x, y=5, width=14, height=14, fill_opacity=0.28))
        if interleaved:
            found.append(tag("rect", class_=kind, x=x + 16, y=5, width=14, height=14, fill_opacity=0.65))
        x += 36 if interleaved else 20
        words = f"{kind}, a rank's first to last stage" if interleaved else kind
        found.append(tag("text", words, x=x, y=16))
        x += 7 * len(words) + 24
    return found
