"""A measured number with its interval: what every section of the report is made of."""

from __future__ import annotations

from dataclasses import dataclass

Number = float | None
Count = int | None


@dataclass(frozen=True)
class Score:
    """A measured fraction (or a difference of two) with its interval, and how many items it was measured on."""

    value: Number
    low: Number = None
    high: Number = None
    n: Count = None
