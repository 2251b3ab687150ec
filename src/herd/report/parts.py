"""The parts that every section is made of: headed sections, tables, figures, signs, and text that may be long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from herd.report.data import Number, Score
from herd.report.html import Child, Html, tag
from herd.report.numbers import count, finite, shorten

LONGEST_NAME, LONGEST_CELL = 48, 160  # characters of a row's head, and of any other cell
MISSING = "Not part of this run."


def section(ident: str, title: str, lead: str, *body: Child) -> Html:
    """A section of the page. Without a body it says that it was not part of this run."""
    shown = [part for part in body if part]
    inside: list[Child] = [tag("p", lead, class_="lead"), *shown] if shown else [tag("p", MISSING, class_="missing")]
    return tag("section", tag("h2", title, id=f"{ident}-title"), *inside, id=ident, aria_labelledby=f"{ident}-title")


def subheading(text: str) -> Html:
    return tag("h3", text)


def note(*words: Child) -> Html:
    return tag("p", *words, class_="note")


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    numeric: Sequence[int] = (),
    class_: str = "stack",
) -> Html:
    """A table whose first column heads its rows; columns in `numeric` are set right.

    Class "stack" turns each row into a small block on a phone, where the head of a column stands beside its cell.
    Any table that is still too wide scrolls by itself.
    """
    look = ["num" if column in numeric else None for column in range(len(head))]
    top = tag("tr", [tag("th", text, scope="col", class_=look[i]) for i, text in enumerate(head)])
    body = [
        tag(
            "tr",
            _cell("th", row[0], LONGEST_NAME, scope="row"),
            [
                _cell("td", cell, LONGEST_CELL, class_=look[i], data_label=head[i] or None)
                for i, cell in enumerate(row[1:], 1)
            ],
        )
        for row in rows
    ]
    inner = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", body), class_=class_ or None)
    return scrolling(inner, caption)


def _cell(name: str, child: Child, limit: int, **attributes: str | None) -> Html:
    """A cell; text beyond `limit` characters is cut, its tooltip has more: one name must not bend the table."""
    if isinstance(child, str) and not isinstance(child, Html) and len(child) > limit:
        return tag(name, shorten(child, limit), title=shorten(child, 1000), **attributes)
    return tag(name, child, **attributes)


def scrolling(inner: Html, name: str) -> Html:
    """What is wider than the page scrolls inside itself; it takes the focus, to be scrolled without a mouse."""
    return tag("div", inner, class_="scroll", role="region", aria_label=name, tabindex="0")


def figure(caption: str, *drawing: Child) -> Html:
    return tag("figure", *drawing, tag("figcaption", caption))


def more(summary: str, *body: Child) -> Html:
    return tag("details", tag("summary", summary), *body)


def bar(share: Number, style: str = "s0") -> Html:
    """A bar inside a table cell; `share` is of the longest bar, 0 to 1. The number stands beside it, not in it."""
    value = min(max(finite(share) or 0.0, 0.0), 1.0)
    return tag("span", tag("span", style=f"width:{100 * value:.1f}%", class_=style), class_="bar", aria_hidden="true")


def sign(holds: bool | None) -> Html:
    """The verdict on a claim: a sign and a word, and a colour besides. Only what does not hold is red."""
    if holds is None:
        return tag("span", "not part of this run", class_="sign open")
    return tag("span", "✓ holds", class_="sign holds") if holds else tag("span", "✗ does not hold", class_="sign fails")


def warning(*words: Child) -> Html:
    return tag("p", tag("strong", "! ", aria_hidden="true"), *words, class_="warning")


def command(line: str) -> Html | None:
    return tag("pre", tag("code", line), class_="command") if line else None


def long_text(text: str, *, shown: int = 320, most: int = 4000) -> Html:
    """Text as it was written. Beyond `shown` characters it folds, beyond `most` it is cut, and says so."""
    if len(text) <= shown:
        return tag("div", text, class_="text", dir="auto")
    rest = text[:most]
    size = (
        f"all {count(len(text))} characters" if len(text) <= most else f"{count(most)} of {count(len(text))} characters"
    )
    opening = tag("span", rest[:shown].rstrip(), "…", class_="text", dir="auto")
    folded = tag("summary", opening, " ", tag("span", size, class_="unfold"))
    return tag("details", folded, tag("div", rest, class_="text", dir="auto"), class_="long")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html | None:
    """Names and values in pairs; those without a value are left out."""
    given = [(name, value) for name, value in pairs if value not in (None, "", "–")]
    if not given:
        return None
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in given], class_="facts")


def in_order(*groups: Mapping[str, Score]) -> list[str]:
    """The keys of all groups, each once, in the order in which they first stand."""
    return list(dict.fromkeys(key for group in groups for key in group))


def thin(xs: Sequence[Number], ys: Sequence[Number], most: int = 240) -> list[tuple[Number, Number]]:
    """At most `most` points of a curve: means over equal steps of log x, so that the early part keeps its shape."""
    points = [(x, y) for x, y in zip(map(finite, xs), map(finite, ys), strict=False) if x and y is not None and x > 0]
    if len(points) <= most:
        return list(points)
    low = math.log(min(x for x, _ in points))
    wide = (math.log(max(x for x, _ in points)) - low) or 1.0
    buckets: dict[int, list[tuple[float, float]]] = {}
    for x, y in sorted(points):
        buckets.setdefault(min(int(most * (math.log(x) - low) / wide), most - 1), []).append((x, y))
    return [(_mean([x for x, _ in held]), _mean([y for _, y in held])) for held in buckets.values()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
