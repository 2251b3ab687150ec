"""Lines of the announcement by how they are decided: by claims, by a score, or not at all in this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from herd.evaluate.statistics import Interval
from herd.report.claims import Claim
from herd.report.data import AnnouncementLine
from herd.report.numbers import percent, score
from herd.road.summary.folders import as_score

ASKED = 0.50  # what an ability must reach to be called one; the same bar as in the claims


def left_open(claim: str, measured: str = "", command: str = "") -> AnnouncementLine:
    return AnnouncementLine(claim, command, measured, None)


def of_claims(claim: str, deciding: Sequence[Claim], command: str = "") -> AnnouncementLine:
    """Holds if all the claims do; open when the run has none of them."""
    if not deciding:
        return left_open(claim)
    told = "; ".join(f"{one.name}: {_cut(one)}" for one in deciding) if len(deciding) > 1 else _cut(deciding[0])
    return AnnouncementLine(claim, command or deciding[0].command, told, all(one.holds for one in deciding))


def of_scores(claim: str, scores: Mapping[str, Interval], command: str) -> AnnouncementLine:
    """Holds if the least of the scores reaches the bar; open when there is none."""
    if not scores:
        return left_open(claim)
    least = min(scores, key=lambda name: scores[name].value)
    if len(scores) == 1:
        told = score(as_score(scores[least]))
    else:
        told = ", ".join(f"{name} {percent(one.value, 0)}" for name, one in scores.items())
        told += f"; the least is {least} with {score(as_score(scores[least]))}"
    return AnnouncementLine(
        claim, command, f"{told}; at least {percent(ASKED, 0)} is asked", scores[least].value >= ASKED
    )


def _cut(claim: Claim) -> str:
    return "" if claim.measured is None else str(claim.measured)
