"""The account of what a round removed: every drop has a rule and a reason, and is kept beside what was kept.

A rule that dropped nothing, or everything, is named: the first may be dead, the second is broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from herd.progress import Progress

ENOUGH = 20  # below so many, all or nothing is chance


@dataclass(frozen=True)
class Drop:
    """One removed reply: by which rule, and the figure or text that decided."""

    task_id: str
    index: int  # of the candidate; -1 for a dialogue that is not one
    rule: str
    reason: str
    text: str


@dataclass
class Ledger:
    """Counts of what each rule looked at and dropped, in the order in which the rules were applied."""

    examined: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    drops: list[Drop] = field(default_factory=list)

    def look(self, rule: str, count: int = 1) -> None:
        self.examined[rule] += count

    def drop(self, drop: Drop) -> None:
        self.dropped[drop.rule] += 1
        self.drops.append(drop)

    def report(self) -> list[dict[str, Any]]:
        """One row a rule: rule, examined, dropped, share, and what stands out, if anything does."""
        return [
            {
                "rule": rule,
                "examined": examined,
                "dropped": self.dropped[rule],
                "share": self.dropped[rule] / examined if examined else 0.0,
                "says": _says(examined, self.dropped[rule]),
            }
            for rule, examined in self.examined.items()
        ]

    def tell(self, progress: Progress) -> None:
        """Note the rules that dropped all (one line each) and those that dropped nothing (one line together)."""
        rows = self.report()
        for row in rows:
            if row["says"] == "dropped everything":
                progress.note(f"quality rule '{row['rule']}' dropped all {row['examined']} it looked at: check it")
        idle = [row["rule"] for row in rows if row["says"] == "dropped nothing"]
        if idle:
            progress.note(f"quality rules that dropped nothing (0 %): {', '.join(idle)}")


def _says(examined: int, dropped: int) -> str:
    if examined == 0:
        return "saw nothing"
    if dropped == examined and examined >= ENOUGH:
        return "dropped everything"
    return "dropped nothing" if dropped == 0 else ""


def drop_to_row(drop: Drop) -> Mapping[str, Any]:
    return {
        "task": drop.task_id,
        "index": drop.index,
        "rule": drop.rule,
        "reason": drop.reason,
        "text": drop.text,
    }
