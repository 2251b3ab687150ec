"""Documents, replies and names come from anywhere: none of them may become markup, and no number may break the page."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_check import Page
from report_fixture import full_report

from herd.report.data import LineageNode, LossCurve, ModelCard, ReportData, Score, ScoreCell
from herd.report.html import Html, escape, join, tag
from herd.report.page import render

HOSTILE = "\"'`</style></script><img src=x onerror=alert(1)><!-- ]]> &lt; &#0; \x00\x0b\ud800\u202e {{7*7}}"


def replaced(value: Any, text: str | None, number: float | None, *, numbers: bool = False) -> Any:
    """`value` with every text, or every number, of it replaced."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            spec.name: replaced(getattr(value, spec.name), text, number, numbers=numbers)
            for spec in dataclasses.fields(value)
        }
        return type(value)(**fields)
    if isinstance(value, dict):
        return {
            key if text is None else text + key: replaced(item, text, number, numbers=numbers)
            for key, item in value.items()
        }
    if isinstance(value, tuple):
        return tuple(replaced(item, text, number, numbers=numbers) for item in value)
    if isinstance(value, str) and text is not None:
        return text + value
    if numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
        return number
    return value


def test_hostile_text_everywhere_stays_text() -> None:
    clean, page = Page(render(full_report())), Page(render(replaced(full_report(), HOSTILE, None)))
    assert page.tags() == clean.tags()
    assert page.values("onerror") == []
    known = {name for _, attrs in clean.elements for name in attrs}
    assert {name for _, attrs in page.elements for name in attrs} <= known
    assert "<img src=x onerror=alert(1)>" in page.text, "shown as it was written"
    assert "\x00" not in page.text
    render(replaced(full_report(), HOSTILE, None)).encode("utf-8")


def test_long_words_are_shortened_or_left_to_wrap() -> None:
    source = render(replaced(full_report(), "W" * 500, None))
    folded = [attrs for tag, attrs in Page(source).elements if tag == "details" and attrs.get("class") == "long"]
    assert folded
    assert len(source.encode()) < 3_000_000


@pytest.mark.parametrize("number", [None, math.nan, math.inf, -math.inf, 0, -1.5, 1e300, 1e-300])
def test_any_number_everywhere_still_gives_a_page(number: float | None) -> None:
    data = full_report()
    corpus = dataclasses.replace(data.corpus, steps=()) if data.corpus else None  # counts of reasons are whole numbers
    broken = replaced(dataclasses.replace(data, corpus=corpus, claims=()), None, number, numbers=True)
    source = render(broken)
    page = Page(source)
    assert "nan" not in page.text.lower().split()
    places = [
        value
        for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "points", "width", "height", "style")
        for value in page.values(key)
    ]
    assert [value for value in places if "nan" in value or "inf" in value] == []


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_text_survives_escaping_except_for_what_cannot_be_written(text: str) -> None:
    element = tag("p", text, title=text)
    page = Page(element)
    assert page.tags() == {"p"}
    assert "".join(page.words).replace("\r", "\n") == unescaped(text)
    assert (page.values("title")[0]).replace("\r", "\n") == unescaped(text)
    element.encode("utf-8")


def unescaped(text: str) -> str:
    import html

    return html.unescape(escape(text)).replace("\r", "\n")


def test_only_markup_made_by_us_passes_unescaped() -> None:
    assert tag("p", "<b>") == "<p>&lt;b&gt;</p>"
    assert tag("p", tag("b", "x")) == "<p><b>x</b></p>"
    assert tag("p", ["<i>", tag("b", "x"), None, 3]) == "<p>&lt;i&gt;<b>x</b>3</p>"
    assert join(["a", Html("<hr>")], " & ") == "a &amp; <hr>"
    with pytest.raises(AssertionError, match="not an attribute name"):
        tag("p", **{"onload=alert(1) x": "y"})


def test_lineage_with_circles_and_unknown_inputs_is_drawn() -> None:
    nodes = (
        LineageNode("a", "a", inputs=("b",)),
        LineageNode("b", "b", inputs=("a", "ghost")),
        LineageNode("c", "c", inputs=("c",)),
    )
    assert "from a, ghost" in Page(render(ReportData("x", lineage=nodes))).text


def test_many_models_curves_and_languages_still_fit() -> None:
    models = tuple(ModelCard(f"model-{number}", score=Score(0.5)) for number in range(30))
    curves = tuple(LossCurve(f"run-{n}", tokens=(1.0, 2.0), loss=(3.0, 2.0)) for n in range(40))
    cells = tuple(ScoreCell("m", f"capability {n}", f"lang{n % 12}", Score(n / 100)) for n in range(100))
    nodes = tuple(LineageNode(f"n{n}", f"n{n}", inputs=tuple(f"n{i}" for i in range(n))) for n in range(40))
    Page(render(ReportData("many", models=models, training=curves, scores=cells, lineage=nodes)))
