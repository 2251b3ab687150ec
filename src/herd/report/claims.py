"""claims.json: what a run must show, what it measured, and whether that holds.

    [{"name", "expected", "measured", "interval", "holds", "command"}, ...]

A claim is decided where it is measured; this file only keeps the verdict, and refuses one that cannot be meant:
a claim that holds without a measurement, an interval upside down, two claims of one name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from herd.errors import FormatError
from herd.files import read_json, write_json
from herd.report.codec import decode, encode


@dataclass(frozen=True)
class Claim:
    """`expected` is a sentence ("at least 0.95"), `command` the line that measures it again.

    `measured` is a number in the unit of `expected`, or a sentence; None (or NaN) says that there is no measurement.
    """

    name: str
    expected: str
    measured: str | float | None
    interval: tuple[float, float] | None
    holds: bool
    command: str


def write_claims(path: Path, claims: Iterable[Claim]) -> None:
    """Write claims.json. Raises FormatError for a claim that cannot be meant; then nothing is written."""
    claims = tuple(claims)
    check_claims(claims, str(path))
    write_json(path, encode(claims))


def read_claims(path: Path) -> tuple[Claim, ...]:
    """Raises ArtifactError if the file is missing, FormatError if it is not a list of claims."""
    value = read_json(path)
    if not isinstance(value, list):
        raise FormatError("a list of claims expected", where=str(path))
    claims = tuple(decode(Claim, item, f"{path}[{index}]") for index, item in enumerate(value))
    check_claims(claims, str(path))
    return claims


def check_claims(claims: tuple[Claim, ...], where: str) -> None:
    names: set[str] = set()
    for claim in claims:
        fault = _fault(claim)
        if not fault and claim.name in names:
            fault = "an earlier claim has the same name"
        if fault:
            raise FormatError(f"claim '{claim.name}': {fault}", where=where)
        names.add(claim.name)


def _fault(claim: Claim) -> str:
    if not claim.name.strip() or not claim.expected.strip():
        return "needs a name and what is expected"
    missing = claim.measured is None or (isinstance(claim.measured, float) and not math.isfinite(claim.measured))
    if claim.holds and (missing or claim.measured == ""):
        return "cannot hold without a measurement"
    if claim.interval is not None:
        low, high = claim.interval
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            return f"its interval ({low}, {high}) is not one"
    return ""
