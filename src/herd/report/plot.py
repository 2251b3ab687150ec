"""A small chart writer: inline SVG that keeps its text size at every width.

The SVG is the plot area and nothing else. Dots, whiskers and text stand at percent positions and keep their size in
pixels; lines live in an inner <svg> that is stretched (preserveAspectRatio none) with strokes that do not stretch.
So one drawing is right on a phone, a screen and paper. matplotlib's SVG scales as a whole, its text with it: 12 px
at 820 wide is 5 px on a phone, which is why it is not used here.

Colours are CSS classes (s0, s1, ...), so that dark mode is the stylesheet's work; every series also has its own dash
and marker, so that colour is never the only signal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from herd.report.axes import Axis
from herd.report.data import Number
from herd.report.html import Child, Html, tag

Point = tuple[Number, Number]

DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "6 2 1 2 1 2")
MARKS = ("round", "square", "diamond", "triangle")


def series_class(index: int) -> str:
    return f"s{index % 8}"


class Plot:
    """Marks over two axes; `html()` gives the figure's drawing. Values that cannot be drawn are left out."""

    def __init__(self, x: Axis, y: Axis, description: str, height: int = 280) -> None:
        self.x, self.y, self.description, self.height = x, y, description, height
        self._lines: list[Html] = []
        self._marks: list[Html] = []

    def line(self, points: Iterable[Point], style: str, dash: str = "", title: str = "") -> None:
        """A polyline through the points; a missing point breaks it."""
        for piece in self._pieces(points):
            path = " ".join(f"{10 * self.x.percent(x):.1f},{1000 - 10 * self.y.percent(y):.1f}" for x, y in piece)
            self._lines.append(
                tag("polyline", _title(title), points=path, class_=f"line {style}", stroke_dasharray=dash or None)
            )

    def dot(self, x: Number, y: Number, style: str, title: str = "", mark: str = "round") -> None:
        if x is not None and y is not None and self.x.takes(x) and self.y.takes(y):
            self._marks.append(marker(self.x.percent(x), f"{100 - self.y.percent(y):g}%", style, title, mark))

    def whisker(self, x: Number, low: Number, high: Number, style: str, title: str = "") -> None:
        """A vertical interval."""
        if x is None or low is None or high is None or not (self.x.takes(x) and self.y.takes(low)):
            return
        if self.y.takes(high):
            ends = {"y1": f"{100 - self.y.percent(low):g}%", "y2": f"{100 - self.y.percent(high):g}%"}
            at = f"{self.x.percent(x):g}%"
            self._marks.append(tag("line", _title(title), x1=at, x2=at, class_=f"whisker {style}", **ends))

    def html(self) -> Html:
        stretched = tag(
            "svg", *self._lines, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%"
        )
        drawing = tag(
            "svg",
            *self._grid(),
            stretched,
            *self._marks,
            role="img",
            aria_label=self.description,
            width="100%",
            height=str(self.height),
        )
        return tag("div", _axis_name(self.y.label, "y"), drawing, _axis_name(self.x.label, "x"), class_="plot")

    def _grid(self) -> list[Html]:
        parts = []
        for value, text in self.y.ticks:
            at = f"{100 - self.y.percent(value):g}%"
            parts.append(tag("line", x1="0", x2="100%", y1=at, y2=at, class_="grid"))
            parts.append(tag("text", text, x="-8", y=at, dy="0.35em", text_anchor="end"))
        for value, text in self.x.ticks:
            at = f"{self.x.percent(value):g}%"
            parts.append(tag("line", x1=at, x2=at, y1="100%", y2="100%", class_="tick", transform="translate(0 4)"))
            parts.append(tag("text", text, x=at, y="100%", dy="18", text_anchor="middle"))
        parts.append(tag("line", x1="0", x2="100%", y1="100%", y2="100%", class_="base"))
        return parts

    def _pieces(self, points: Iterable[Point]) -> list[list[tuple[float, float]]]:
        pieces: list[list[tuple[float, float]]] = [[]]
        for x, y in points:
            if x is not None and y is not None and self.x.takes(x) and self.y.takes(y):
                pieces[-1].append((x, y))
            else:
                pieces.append([])
        return [piece for piece in pieces if len(piece) > 1]


def marker(x_percent: float, y: str, style: str, title: str = "", mark: str = "round", hollow: bool = False) -> Html:
    """A mark of fixed size; it stands in an <svg> of its own, the one way to place a path at a percentage."""
    shape = {
        "round": tag("circle", r="4.2"),
        "square": tag("rect", x="-4", y="-4", width="8", height="8"),
        "diamond": tag("path", d="M0-5.4 5.4 0 0 5.4-5.4 0z"),
        "triangle": tag("path", d="M0-5.2 5 3.8-5 3.8z"),
        "ring": tag("circle", r="7.5"),
    }[mark]
    look = f"mark {style} hollow" if hollow or mark == "ring" else f"mark {style}"
    inner = tag("g", _title(title), shape, class_=look)
    return tag("svg", inner, x=f"{x_percent:g}%", y=y, overflow="visible", width="1", height="1")


def legend(entries: Sequence[tuple[str, str, str, str]]) -> Html:
    """Names beside a sample of their line and mark: (name, style, dash, mark).

    Dash "none" is a mark without a line, mark "" a line without a mark; "hollow round" is an open one.
    """
    items = []
    for name, style, dash, mark in entries:
        sample: list[Child] = []
        if dash != "none":
            sample.append(
                tag("line", x1="1", x2="27", y1="8", y2="8", class_=f"line {style}", stroke_dasharray=dash or None)
            )
        if mark:
            shape = mark.removeprefix("hollow ")
            sample.append(marker(50, "50%", style, mark=shape, hollow=shape != mark))
        items.append(tag("li", tag("svg", *sample, width="28", height="16", aria_hidden="true"), name))
    return tag("ul", *items, class_="legend")


def _axis_name(label: str, which: str) -> Html | None:
    return tag("div", label, class_=f"axis {which}", aria_hidden="true") if label else None


def _title(text: str) -> Html | None:
    return tag("title", text) if text else None
