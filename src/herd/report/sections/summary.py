"""The top of the page: the family, and what holds and what does not."""

from __future__ import annotations

from herd.report.data import ModelCard, ReportData, Score
from herd.report.html import Child, Html, tag
from herd.report.numbers import finite, percent, score_interval, seconds, short, shorten, size
from herd.report.parts import command


def summary(data: ReportData) -> Html:
    run = data.run
    byline = [] if run is None else [run.date, run.machine.cpu, f"{seconds(run.seconds)} in all" if run.seconds else ""]
    return tag(
        "header",
        tag("p", "A report of one run", class_="kicker"),
        tag("h1", f"The herd “{shorten(data.recipe, 60)}”"),
        tag("p", " · ".join(part for part in byline if part), class_="byline") if any(byline) else None,
        _verdict(data),
        _family(data.models),
        _next_line(run.next_command if run else ""),
        id="summary",
    )


def _verdict(data: ReportData) -> Html:
    """Every claim that does not hold is named here, whatever else the page shows."""
    failing = [(claim.name, f"claim-{number}") for number, claim in enumerate(data.claims, 1) if not claim.holds]
    lines = [(line.claim, f"line-{number}") for number, line in enumerate(data.announcement, 1) if line.holds is False]
    judged = [line for line in data.announcement if line.holds is not None]
    counted = [
        ("Claims of this run", len(data.claims), len(failing)),
        ("Lines of the announcement that this run tried", len(judged), len(lines)),
    ]
    # What holds altogether comes first, so that the list of what does not follows on its own sentence.
    parts = [_sentence(*each) for each in sorted(counted, key=lambda each: each[2] > 0) if each[1]]
    if not parts:
        return tag("p", "No claim was checked in this run.", class_="verdict")
    named = [
        tag(
            "li",
            tag("span", "✗ does not hold", class_="sign fails"),
            " ",
            tag("a", shorten(name, 200), href=f"#{ident}"),
        )
        for name, ident in failing + lines
    ]
    return tag("div", *parts, tag("ul", named, class_="failing") if named else None, class_="verdict")


def _sentence(what: str, total: int, failing: int) -> Html:
    holding = f"{what}: {total - failing} of {total} {'holds' if total == 1 else 'hold'}"
    if failing:
        return tag("p", f"{holding}, {failing} {'does' if failing == 1 else 'do'} not:")
    return tag("p", tag("strong", "✓ ", aria_hidden="true"), f"{holding}.")


def _family(models: tuple[ModelCard, ...]) -> Html:
    if not models:
        return tag("p", "No model was made in this run.", class_="missing")
    return tag("ul", [_card(model) for model in models], class_="family")


def _card(model: ModelCard) -> Html:
    measures = [
        f"{short(model.parameters)} parameters" if model.parameters is not None else "",
        f"{short(model.tokens)} tokens" if model.tokens is not None else "",
        size(model.bytes) if model.bytes is not None else "",
    ]
    return tag(
        "li",
        tag(
            "div",
            tag("strong", shorten(model.name, 40)),
            tag("span", shorten(model.role, 40), class_="role") if model.role else None,
        ),
        tag("div", " · ".join(part for part in measures if part), class_="measures"),
        _score_line(model.score),
        tag("code", model.folder) if model.folder else None,
    )


def _score_line(found: Score | None) -> Html:
    value = finite(found.value) if found else None
    if found is None or value is None:
        return tag("div", "not scored", class_="measures")
    low, high = finite(found.low), finite(found.high)
    track: list[Child] = [tag("span", class_="fill", style=f"width:{100 * min(max(value, 0), 1):.1f}%")]
    if low is not None and high is not None and 0 <= low <= high <= 1:
        track.append(tag("span", class_="range", style=f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"))
    return tag(
        "div",
        tag("span", percent(value), class_="big"),
        tag("span", "suite average ", score_interval(found), class_="measures unbroken"),
        tag("span", *track, class_="track", aria_hidden="true"),
        class_="score",
    )


def _next_line(line: str) -> Html | None:
    return tag("div", tag("p", "Talk to it:", class_="note"), command(line), class_="next") if line else None
