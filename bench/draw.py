"""The pictures of docs/parallelism.md out of the rows in bench/results: `python -m bench.draw`.

    train-scaling.svg   what a token (or a step) costs by width, length of a row and sequences of a step
    train-axes.svg      what each axis leaves of two processes

Dots and bars are the trainer's, lines and strokes the planner's forecast from the machine's measured rates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.plan import LAYOUTS, layouts, shapes
from herd.report.axes import Axis, linear_axis, log_axis
from herd.report.html import Html, tag
from herd.report.schedule import WIDTH, alone

ROOT = Path(__file__).parents[1]
RESULTS, PICTURES = ROOT / "bench" / "results", ROOT / "docs" / "pictures"
_STYLE = """
.measured { fill: #2b6350; } .forecast { fill: none; stroke: #b9581f; stroke-width: 2; } .bar { fill: #2b6350; }
.title { font-size: 14px; font-weight: 600; fill: var(--ink); } .grid { stroke: var(--soft); stroke-width: .5; }
@media (prefers-color-scheme: dark) {
  .measured, .bar { fill: #74c2a2; } .forecast { stroke: #e99660; }
}
"""
_GAP, _TOP, _HIGH, _BOTTOM = 56, 76, 230, 44

Pair = tuple[float, float, float]  # where it stands on the axis below, measured, forecast


def recorded(prefix: str) -> dict[str, dict[str, Any]]:
    """The latest row of each name that begins so."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob(f"*-{prefix}*.json")):  # their names begin with the date
        row = json.loads(path.read_text(encoding="utf-8"))
        found[row["row"]] = row
    return found


def scaling_picture() -> Html:
    rows, cases = recorded("train-scaling-"), shapes()

    def panel(name: str, x: Callable[[str], float], cost: Callable[[str, float], float]) -> list[Pair]:
        names = [row for row in cases if row.startswith(f"train-scaling-{name}-") and row in rows]
        return [(x(row), cost(row, rows[row]["herd"]), cost(row, rows[row]["peer"])) for row in names]

    def microseconds(_: str, rate: float) -> float:
        return 1e6 / rate

    def seconds(row: str, rate: float) -> float:
        return cases[row][2] * cases[row][3] / rate

    def last(row: str) -> float:
        return float(row.rpartition("-")[2])

    panels = (
        ("a token, microseconds, by parameters", panel("width", lambda row: cases[row][0].parameters(), microseconds)),
        ("a token, microseconds, by tokens of a row", panel("length", last, microseconds)),
        ("a step, seconds, by its sequences", panel("batch", last, seconds)),
    )
    title = "What training costs on one processor, float32: dots trained, lines forecast"
    parts = [tag("text", title, class_="title", x=0, y=18)]
    wide = (WIDTH - 2 * _GAP) / len(panels)
    for number, (name, pairs) in enumerate(panels):
        parts += _panel(name, pairs, _GAP * 0.8 + number * (wide + _GAP * 0.6), wide - _GAP * 0.6, number == 2)
    return alone(parts, _TOP + _HIGH + _BOTTOM, title, _STYLE)


def _panel(name: str, pairs: Sequence[Pair], left: float, wide: float, straight: bool) -> list[Html]:
    kind = linear_axis if straight else log_axis
    values = [value for _, *both in pairs for value in both]
    across, up = kind("", [x for x, _, _ in pairs]), kind("", [*values, 0.0] if straight else values)
    parts = [tag("text", name, x=round(left), y=_TOP - 26)]

    def place(x: float, y: float) -> tuple[float, float]:
        return round(left + wide * across.percent(x) / 100, 1), round(_TOP + _HIGH * (1 - up.percent(y) / 100), 1)

    parts += _grid(across, up, left, wide)
    line = " ".join("{},{}".format(*place(x, forecast)) for x, _, forecast in pairs)
    parts.append(tag("polyline", points=line, class_="forecast"))
    for x, trained, forecast in pairs:
        at, high = place(x, trained)
        said = f"{x:g}: trained {trained:.3g}, forecast {forecast:.3g}"
        parts.append(tag("circle", tag("title", said), cx=at, cy=high, r=4, class_="measured"))
    return parts


def _grid(across: Axis, up: Axis, left: float, wide: float) -> list[Html]:
    parts = []
    for value, text in up.ticks:
        y = round(_TOP + _HIGH * (1 - up.percent(value) / 100), 1)
        parts.append(tag("line", x1=round(left), x2=round(left + wide), y1=y, y2=y, class_="grid"))
        parts.append(tag("text", text, x=round(left) - 6, y=y + 4, text_anchor="end"))
    for value, text in across.ticks:
        x = round(left + wide * across.percent(value) / 100, 1)
        parts.append(tag("text", text, x=x, y=_TOP + _HIGH + 18, text_anchor="middle"))
    return parts


def axes_picture() -> Html:
    rows, left, each = recorded("plan-cpu-"), 170, 30
    title = "What each axis leaves of two processes, float32: bars trained, strokes forecast"
    parts, y = [tag("text", title, class_="title", x=0, y=18)], 40
    wide = WIDTH - left - 60
    for name in layouts():
        row = rows[name]
        share, expected = row["herd"] / row["limit"], row["peer"] / row["limit"]
        at = round(left + wide * expected, 1)
        parts += [
            tag("text", LAYOUTS[name.removeprefix("plan-cpu-")], x=0, y=y + 15),
            tag("rect", x=left, y=y, width=round(wide * share, 1), height=20, class_="bar"),
            tag("line", x1=at, x2=at, y1=y - 3, y2=y + 23, class_="forecast"),
            tag("text", f"{share:.0%}", x=round(left + wide * max(share, expected), 1) + 8, y=y + 15),
        ]
        y += each
    for tick in range(0, 101, 25):
        x = round(left + wide * tick / 100, 1)
        parts.insert(1, tag("line", x1=x, x2=x, y1=34, y2=y, class_="grid"))
        parts.append(tag("text", f"{tick} %", x=x, y=y + 14, text_anchor="middle"))
    return alone(parts, y + 26, title, _STYLE)


DRAWN: dict[str, tuple[Callable[[], Html], str]] = {
    "train-scaling.svg": (scaling_picture, "train-scaling"),
    "train-axes.svg": (axes_picture, "plan-cpu"),
}


def main() -> None:
    for name, (draw, rows) in DRAWN.items():
        if not recorded(f"{rows}-"):
            print(f"{name} is not drawn: there is no row of it; make them with: python -m bench {rows} --save")
            continue
        (PICTURES / name).write_text(draw() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
