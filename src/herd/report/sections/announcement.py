"""Section 10: the announcement line by line, and the claims of this run."""

from __future__ import annotations

from herd.report.claims import Claim
from herd.report.data import AnnouncementLine
from herd.report.html import Html, tag
from herd.report.numbers import measured
from herd.report.parts import command, section, sign, subheading


def announcement_section(lines: tuple[AnnouncementLine, ...], claims: tuple[Claim, ...]) -> Html:
    lead = "What was announced, the command that shows it here, what was measured, and whether it holds."
    return section("announcement", "The announcement, line by line", lead, _lines(lines), _claims(claims))


def _lines(lines: tuple[AnnouncementLine, ...]) -> Html | None:
    if not lines:
        return None
    items = [
        _item(f"line-{number}", line.claim, line.holds, [("Measured", line.measured)], line.command)
        for number, line in enumerate(lines, 1)
    ]
    return tag("ol", items, class_="lines")


def _claims(claims: tuple[Claim, ...]) -> Html | None:
    if not claims:
        return None
    items = [
        _item(
            f"claim-{number}",
            claim.name,
            claim.holds,
            [("Expected", claim.expected), ("Measured", _measured(claim))],
            claim.command,
        )
        for number, claim in enumerate(claims, 1)
    ]
    return tag("div", subheading("The claims of this run, as in claims.json"), tag("ol", items, class_="lines"))


def _measured(claim: Claim) -> str:
    value = claim.measured if isinstance(claim.measured, str) else measured(claim.measured)
    if claim.interval is None:
        return value
    return f"{value} ({measured(claim.interval[0])} to {measured(claim.interval[1])})"


def _item(ident: str, claim: str, holds: bool | None, pairs: list[tuple[str, str]], line: str) -> Html:
    values = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value]
    return tag(
        "li",
        tag("div", tag("strong", claim), " ", sign(holds), class_="claim"),
        tag("dl", values) if values else None,
        command(line),
        id=ident,
        class_="fails-line" if holds is False else None,
    )
