"""Numbers and drawings: what is written is what was measured, and it stands where the axis says."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_check import Page

from herd.report import numbers
from herd.report.axes import linear_axis, log_axis, percent_axis
from herd.report.data import LineageNode, Score
from herd.report.parts import thin
from herd.report.plot import Plot
from herd.report.rows import Row, Series, rows_chart
from herd.report.sections.lineage import in_making_order

FINITE = st.floats(min_value=-1e12, max_value=1e12)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.8244), "82.4 %"),
        (numbers.signed_points(-0.003), "−0.3"),
        (numbers.signed_points(0.216), "+21.6"),
        (numbers.short(6_291_456), "6.29 M"),
        (numbers.short(999_990), "1.00 M"),
        (numbers.short(431), "431"),
        (numbers.size(12_700_000), "12.7 MB"),
        (numbers.size(12), "12 B"),
        (numbers.seconds(7.24), "7.2 s"),
        (numbers.seconds(59.7), "1 min 00 s"),
        (numbers.seconds(1234.4), "20 min 34 s"),
        (numbers.seconds(7440), "2 h 04 min"),
        (numbers.scientific(3.2e-4), "3.2 × 10⁻⁴"),
        (numbers.scientific(1e11), "10¹¹"),
        (numbers.plain(1.3771), "1.377"),
        (numbers.measured(7.8), "7.8"),
        (numbers.score(Score(0.5, 0.42, 0.58)), "50.0 % (42.0 to 58.0)"),
        (numbers.difference(Score(0.078, 0.061, 0.095)), "+7.8 points (+6.1 to +9.5)"),
        (numbers.shorten("abcdef", 4), "abc…"),
    ],
)
def test_numbers_are_written_as_read(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_was_not_measured_is_a_dash(missing: float | None) -> None:
    for write in (
        numbers.percent, numbers.signed_points, numbers.short, numbers.size, numbers.seconds,
        numbers.scientific, numbers.plain, numbers.measured, numbers.count, numbers.rate,
    ):  # fmt: skip
        assert write(missing) == "–"
    assert numbers.score(Score(missing)) == "–"
    assert numbers.score(Score(0.5, missing, 0.6)) == "50.0 %"


@given(st.lists(FINITE, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_linear_axis_holds_its_values_in_order(values: list[float]) -> None:
    axis = linear_axis("x", values)
    places = [axis.percent(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= 100
    assert all(axis.low <= value <= axis.high for value in values)
    ticks = [tick for tick, _ in axis.ticks]
    assert 1 <= len(ticks) <= 18
    assert len({text for _, text in axis.ticks}) == len(ticks), "no two ticks read the same"


@given(st.lists(st.floats(min_value=1e-12, max_value=1e30), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_log_axis_puts_equal_ratios_at_equal_distances(values: list[float]) -> None:
    axis = log_axis("x", values)
    assert all(axis.low <= value * (1 + 1e-9) and value <= axis.high * (1 + 1e-9) for value in values)
    assert len(axis.ticks) <= 5
    low, high = axis.low, axis.high
    assert axis.percent(math.sqrt(low * high)) == pytest.approx(50, abs=0.02)


def test_points_stand_where_the_axes_say() -> None:
    x, y = percent_axis(), percent_axis()
    plot = Plot(x, y, "three points")
    plot.line([(0.0, 0.0), (0.5, 1.0), (1.0, 0.25)], "s0")
    assert 'points="0.0,1000.0 500.0,0.0 1000.0,750.0"' in plot.html()


def test_a_missing_point_breaks_the_line() -> None:
    plot = Plot(percent_axis(), percent_axis(), "a gap")
    plot.line([(0.0, 0.1), (0.1, 0.1), (0.2, math.nan), (0.3, 0.2), (0.4, 0.2), (0.5, None)], "s0")
    plot.dot(0.5, math.nan, "s0")
    plot.whisker(0.5, 0.1, None, "s0")
    found = Page(plot.html())
    assert len(found.values("points")) == 2
    assert [value for value in found.values("class") if "mark" in value or "whisker" in value] == []


def test_rows_show_intervals_marks_and_titles() -> None:
    series = (Series("before", "s6", hollow=True), Series("after", "s0"))
    rows = [Row("math", (Score(0.25, 0.2, 0.3), Score(0.75, 0.7, 0.8)), "+50.0"), Row("code", (None, Score(None)))]
    drawn = rows_chart(rows, series, "change")
    assert 'x="25%"' in drawn
    assert 'x="75%"' in drawn
    assert 'x1="20%" x2="30%"' in drawn or re.search(r'x1="20%"[^>]*x2="30%"', drawn)
    assert "math, after: 75.0 % (70.0 to 80.0)" in Page(drawn).text
    assert drawn.count("mark s") == 2


def test_thinning_keeps_ends_means_and_order() -> None:
    xs = [float(n) for n in range(1, 5001)]
    ys = [10.0 / n for n in range(1, 5001)]
    points = thin(xs, ys, most=100)
    assert len(points) <= 100
    drawn = [(x, y) for x, y in points if x is not None and y is not None]
    assert drawn == sorted(drawn)
    assert drawn[0] == (1.0, 10.0)
    assert all(y == pytest.approx(10.0 / x, rel=0.05) for x, y in drawn)


def test_lineage_lists_inputs_before_what_is_made_of_them() -> None:
    nodes = (
        LineageNode("model", "model", inputs=("shards",)),
        LineageNode("shards", "shards", inputs=("corpus",)),
        LineageNode("corpus", "corpus"),
    )
    assert [node.id for node in in_making_order(nodes)] == ["corpus", "shards", "model"]
