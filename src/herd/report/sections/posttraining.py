"""Section 5: every round of post-training, and what it changed by capability."""

from __future__ import annotations

from herd.report.data import Round, Score
from herd.report.html import Child, Html, tag
from herd.report.numbers import count, finite, percent, score, signed_points
from herd.report.parts import facts, figure, in_order, note, section, subheading, table
from herd.report.plot import legend
from herd.report.rows import Row, Series, rows_chart

BEFORE = Series("before the round", "s6", hollow=True)
AFTER = Series("after the round", "s0")


def posttraining_section(rounds: tuple[Round, ...]) -> Html:
    lead = (
        "In each round the model answers every prompt several times; verifiers and the reward model keep the good "
        "answers, and the next model learns from them."
    )
    if not rounds:
        return section("posttraining", "Post-training", lead)
    return section("posttraining", "Post-training", lead, _rounds_table(rounds), *[_round(one) for one in rounds])


def _rounds_table(rounds: tuple[Round, ...]) -> Html:
    rows = [
        (
            one.name,
            score(one.average_before),
            score(one.average_after),
            signed_points(_change(one.average_before, one.average_after)),
            _gate(one),
        )
        for one in rounds
    ]
    return table("Suite average by round", ("Round", "Before", "After", "Change", "Gate"), rows, numeric=(1, 2, 3))


def _gate(one: Round) -> Child:
    if one.gate is None or one.gate.passed is None:
        return "–"
    return (
        tag("span", "✓ passed", class_="sign holds")
        if one.gate.passed
        else tag("span", "! refused", class_="sign wrong")
    )


def _round(one: Round) -> Html:
    share = one.accepted / one.candidates if one.accepted is not None and one.candidates else None
    accepted = count(one.accepted) + (f" ({percent(share)})" if share is not None else "")
    return tag(
        "div",
        subheading(one.name),
        facts(
            [
                ("Prompts", count(one.prompts)),
                ("Candidates", count(one.candidates)),
                ("Accepted", accepted),
                ("Dialogues for SFT", count(one.sft_dialogues)),
                ("Pairs for DPO", count(one.preference_pairs)),
                ("Reward model, held-out accuracy", score(one.reward_accuracy)),
            ]
        ),
        _chart(one),
        note("Gate: ", one.gate.reason) if one.gate and one.gate.reason else None,
        class_="round",
    )


def _chart(one: Round) -> Html | None:
    rows = [_row(name, one.before.get(name), one.after.get(name)) for name in in_order(one.before, one.after)]
    if one.average_before or one.average_after:
        rows.append(_row("average", one.average_before, one.average_after, strong=True))
    if not rows:
        return None
    changes = ", ".join(f"{row.label} {row.value}" for row in rows if row.value)
    names = [(BEFORE.name, BEFORE.style, "none", "hollow round"), (AFTER.name, AFTER.style, "none", "round")]
    caption = "Score by capability, with 95 % intervals; at the right the change in points."
    return figure(caption, legend(names), rows_chart(rows, (BEFORE, AFTER), f"Change in points: {changes}"))


def _row(label: str, before: Score | None, after: Score | None, strong: bool = False) -> Row:
    change = _change(before, after)
    return Row(label, (before, after), signed_points(change) if change is not None else "", strong)


def _change(before: Score | None, after: Score | None) -> float | None:
    first, last = finite(before.value if before else None), finite(after.value if after else None)
    return None if first is None or last is None else last - first
