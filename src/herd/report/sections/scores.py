"""Section 8: every model by capability and language, and by the turn of a conversation."""

from __future__ import annotations

from herd.report.data import ScoreCell
from herd.report.html import Child, Html, tag
from herd.report.numbers import count, finite, score, shorten
from herd.report.parts import more, note, scrolling, section, subheading, table

PLACES = {"turn_1": "First turn", "turn_2": "Second", "turn_3": "Third", "follow_up": "Follow-up"}
AVERAGE = ""  # the capability, or language, that stands for all of them


def scores_section(cells: tuple[ScoreCell, ...], talk: tuple[ScoreCell, ...] = ()) -> Html:
    lead = "Share of held-out items answered right, in percent, with half the width of the 95 % interval below."
    models = list(dict.fromkeys(cell.model for cell in cells))
    if not models:
        return section("scores", "Scores", lead)
    heats = [_heat(model, [cell for cell in cells if cell.model == model]) for model in models]
    return section(
        "scores",
        "Scores",
        lead,
        _averages(models, cells),
        tag("div", heats, class_="heats"),
        note(
            "A stronger colour is a higher score; a dash was not measured. The exact intervals are in the table below."
        ),
        _numbers(cells),
        _talk(talk),
    )


def _averages(models: list[str], cells: tuple[ScoreCell, ...]) -> Html | None:
    found = {(cell.model, cell.capability): cell.score for cell in cells if cell.lang == AVERAGE}
    if not found:
        return None
    capabilities = list(dict.fromkeys(capability for _, capability in found))
    capabilities.sort(key=lambda name: name == AVERAGE)  # the average stands last
    head = ("Capability", *models)
    rows = [(name or "average", *[score(found.get((model, name))) for model in models]) for name in capabilities]
    numeric = tuple(range(1, len(head)))
    return table("All languages together, in percent with 95 % intervals", head, rows, numeric=numeric)


def _talk(cells: tuple[ScoreCell, ...]) -> Html | None:
    if not cells:
        return None
    found = {(cell.model, cell.capability): cell.score for cell in cells}
    places = list(dict.fromkeys(cell.capability for cell in cells))
    rows = [
        (model, *[score(found.get((model, place))) for place in places])
        for model in dict.fromkeys(cell.model for cell in cells)
    ]
    head = ("Model", *[PLACES.get(place, place) for place in places])
    return tag(
        "div",
        subheading("In a conversation"),
        note(
            "The same held-out questions stand alone, after one turn and after two; a follow-up (“And the animal?”) "
            "says nothing without the turns before it. Those hold right answers. No part of the suite’s average."
        ),
        table(
            "Held-out questions by their place in a conversation, in percent with 95 % intervals",
            head,
            rows,
            numeric=tuple(range(1, len(head))),
        ),
    )


def _heat(model: str, cells: list[ScoreCell]) -> Html:
    found = {(cell.capability, cell.lang): cell for cell in cells}
    langs = sorted({cell.lang for cell in cells}, key=lambda lang: (lang == AVERAGE, _first(cells, lang, "lang")))
    names = sorted(
        {cell.capability for cell in cells}, key=lambda name: (name == AVERAGE, _first(cells, name, "capability"))
    )
    top = tag(
        "tr", tag("td"), [tag("th", shorten(lang, 4) or "all", scope="col", title=lang or None) for lang in langs]
    )
    rows = [
        tag(
            "tr",
            tag("th", shorten(name, 14) or "average", scope="row", title=name or None),
            [_cell(found.get((name, lang))) for lang in langs],
        )
        for name in names
    ]
    inner = tag("table", tag("caption", model), tag("thead", top), tag("tbody", rows), class_="heat")
    return scrolling(inner, f"Scores of {model}")


def _first(cells: list[ScoreCell], value: str, key: str) -> int:
    return next(i for i, cell in enumerate(cells) if (cell.lang if key == "lang" else cell.capability) == value)


def _cell(cell: ScoreCell | None) -> Html:
    value = finite(cell.score.value) if cell else None
    if cell is None or value is None:
        return tag("td", "–", class_="none")
    inside: list[Child] = [f"{100 * value:.0f}"]
    low, high = finite(cell.score.low), finite(cell.score.high)
    if low is not None and high is not None:
        inside.append(tag("small", f"±{50 * (high - low):.0f}"))
    title = f"{cell.capability or 'average'}, {cell.lang or 'all languages'}: {score(cell.score)}"
    return tag("td", *inside, title=title, style=f"--v:{min(max(value, 0.0), 1.0):.2f}")


def _numbers(cells: tuple[ScoreCell, ...]) -> Html:
    rows = [
        (cell.model, cell.capability or "average", cell.lang or "all", score(cell.score), count(cell.score.n))
        for cell in cells
    ]
    head = ("Model", "Capability", "Language", "Score", "Items")
    return more("Every cell in numbers", table("All scores", head, rows, numeric=(3, 4)))
