"""Section 6: what the flagship's teaching gave the small model."""

from __future__ import annotations

from herd.report.data import Score, Teaching
from herd.report.html import Html
from herd.report.numbers import difference, finite, score, signed_points
from herd.report.parts import facts, figure, in_order, more, section, table
from herd.report.plot import legend
from herd.report.rows import Row, Series, rows_chart


def teaching_section(teaching: Teaching | None) -> Html:
    lead = (
        "The same small model, post-trained twice with the same budget: once alone, once with the flagship's answers."
    )
    if teaching is None:
        return section("teaching", "The flagship teaches", lead)
    averages = facts(
        [
            (f"{teaching.student}, alone", score(teaching.average_alone)),
            (f"{teaching.student}, taught by {teaching.teacher}", score(teaching.average_taught)),
            ("Gain, paired item by item", difference(teaching.average_gain)),
            ("Budget of both", teaching.budget),
        ]
    )
    return section("teaching", "The flagship teaches", lead, averages, _chart(teaching), _table(teaching))


def _chart(teaching: Teaching) -> Html | None:
    alone, taught = Series("alone", "s6", hollow=True), Series("taught", "s1", "diamond")
    rows = [
        Row(name, (teaching.alone.get(name), teaching.taught.get(name)), _gain(teaching.gain.get(name)))
        for name in in_order(teaching.alone, teaching.taught)
    ]
    if teaching.average_alone or teaching.average_taught:
        averages = (teaching.average_alone, teaching.average_taught)
        rows.append(Row("average", averages, _gain(teaching.average_gain), strong=True))
    if not rows:
        return None
    names = [("alone", "s6", "none", "hollow round"), ("taught", "s1", "none", "diamond")]
    described = "Gain in points: " + ", ".join(f"{row.label} {row.value}" for row in rows if row.value)
    caption = "Score by capability, with 95 % intervals; at the right the gain in points."
    return figure(caption, legend(names), rows_chart(rows, (alone, taught), described))


def _gain(gain: Score | None) -> str:
    return signed_points(gain.value) if gain and finite(gain.value) is not None else ""


def _table(teaching: Teaching) -> Html | None:
    rows = [
        (name, score(teaching.alone.get(name)), score(teaching.taught.get(name)), difference(teaching.gain.get(name)))
        for name in in_order(teaching.alone, teaching.taught, teaching.gain)
    ]
    if not rows:
        return None
    head = ("Capability", "Alone", "Taught", "Gain, paired")
    return more("The same in numbers", table("Gain by capability", head, rows, numeric=(1, 2, 3)))
