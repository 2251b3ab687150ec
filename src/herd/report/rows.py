"""Scores in rows: a label, one or two marks with their intervals on a common axis, and a value at the right.

The chart for "by capability": before and after, with and without, BF16 and FP8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from herd.report.axes import Axis, percent_axis
from herd.report.data import Score
from herd.report.html import Html, tag
from herd.report.numbers import finite, score, shorten
from herd.report.plot import marker

ROW = 34  # pixels
LABEL = 15  # characters that fit left of the plot


@dataclass(frozen=True)
class Series:
    """One column of marks."""

    name: str
    style: str
    mark: str = "round"
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    label: str
    scores: tuple[Score | None, ...]  # one for each series
    value: str = ""  # text at the right
    strong: bool = False


def rows_chart(
    rows: Sequence[Row],
    series: Sequence[Series],
    description: str,
    axis: Axis | None = None,
    written: Callable[[Score], str] = score,
) -> Html:
    """A drawing of all rows; a score that was not measured leaves its place empty.

    `axis` is 0 to 100 % if none is given; `written` puts a score in words for the tooltip.
    """
    axis = axis or percent_axis()
    height = ROW * len(rows)
    parts: list[Html] = []
    for value, text in axis.ticks:
        at = f"{axis.percent(value):g}%"
        parts.append(tag("line", x1=at, x2=at, y1="0", y2=str(height), class_="grid"))
        parts.append(tag("text", text, x=at, y=str(height), dy="17", text_anchor="middle"))
    for index, row in enumerate(rows):
        parts += _row(row, series, axis, written, ROW * index + ROW // 2)
    drawing = tag("svg", *parts, role="img", aria_label=description, width="100%", height=str(height))
    return tag("div", drawing, class_="plot rows")


def _row(row: Row, series: Sequence[Series], axis: Axis, written: Callable[[Score], str], middle: int) -> list[Html]:
    strong = "strong" if row.strong else None
    parts = [
        tag(
            "text",
            tag("title", row.label),
            shorten(row.label, LABEL),
            x="-10",
            y=str(middle),
            dy="0.35em",
            text_anchor="end",
            class_=strong,
        )
    ]
    shown = [(one, found) for one, found in zip(series, row.scores, strict=True) if found and axis.takes(found.value)]
    places = [axis.percent(found.value) for _, found in shown if found.value is not None]
    if len(places) > 1:
        ends = {"x1": f"{min(places):g}%", "x2": f"{max(places):g}%", "y1": str(middle), "y2": str(middle)}
        parts.append(tag("line", class_="join", **ends))
    for number, (one, found) in enumerate(shown):
        # Two intervals on one line hide each other: the first stands a little above, the second below.
        offset = 0 if len(shown) < 2 else (-5, 5)[number % 2]
        parts.append(_interval(found, axis, one.style, middle + offset))
    for (one, found), place in zip(shown, places, strict=True):
        title = f"{row.label}, {one.name}: {written(found)}"
        parts.append(marker(place, str(middle), one.style, title, one.mark, one.hollow))
    parts.append(tag("text", row.value, x="100%", dx="12", y=str(middle), dy="0.35em", class_=strong))
    return parts


def _interval(found: Score, axis: Axis, style: str, at: int) -> Html:
    low, high = finite(found.low), finite(found.high)
    if low is None or high is None:
        return Html("")
    ends = {"x1": f"{axis.percent(low):g}%", "x2": f"{axis.percent(high):g}%", "y1": str(at), "y2": str(at)}
    return tag("line", class_=f"whisker {style}", **ends)
