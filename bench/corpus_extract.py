"""Main text of web pages: herd's extraction against the libraries, pages a second and F1 on the same pages in one run.

The pages and what people marked in them come from $HERD_DATA (or ../shared/data): 121 articles and 80 readable pages
with their text, F1 over words; 240 pages with passages to keep and to drop, F1 over passages. Each library runs in a
process of its own (those that herd does not need in the environment that HERD_BENCH_EXTRACT names), and the processes
take turns, a slice of the pages each, so that a neighbour on the machine slows them alike. Nothing of herd is tuned to
these pages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from bench.corpus_pages import SETS, mean_f1, pages
from bench.harness import Row, make_row
from bench.sides import Program

PEERS = ("trafilatura", "trafilatura-fast", "resiliparse", "readability")
MORE = ("trafilatura-precision", "trafilatura-recall", "newspaper", "goose")
SLICES = 6


class Side(Program):
    """A library: it is told which slice to read, and tells the seconds that took and the texts."""

    def __init__(self, name: str, python: str) -> None:
        super().__init__(name, [python, "-m", "bench.corpus_worker", name])
        self.rates: list[float] = []
        self.texts: dict[str, str] = {}
        self.missing = bool(self.told().get("missing"))

    def read(self, part: int) -> None:
        self.ask(f"{part} {SLICES}")
        told = self.told()
        self.rates.append(len(told["texts"]) / told["seconds"])
        self.texts |= told["texts"]


def rows(names: Sequence[str] = PEERS) -> list[Row]:
    """A row a peer of pages/s, and one of F1 in per mille; SystemExit without the pages."""
    if not SETS["articles"].is_file():
        raise SystemExit("corpus-extract: no pages: set HERD_DATA to the folder that holds web/")
    elsewhere = os.environ.get("HERD_BENCH_EXTRACT", sys.executable)
    with ExitStack() as stack:
        ours = stack.enter_context(Side("herd", sys.executable))
        peers = [stack.enter_context(Side(name, elsewhere)) for name in names]
        peers = [peer for peer in peers if not peer.missing]
        for part in range(SLICES):
            for side in (ours, *peers):
                side.read(part)
    return [row for peer in peers for row in _compared(ours, peer)]


def _compared(ours: Side, peer: Side) -> Sequence[Row]:
    made = [make_row(f"corpus-extract-{peer.name}", "pages/s", ours.rates, peer.rates, peer.name, None)]
    for name in SETS:
        known = list(pages(name))
        both = [1000 * mean_f1(known, side.texts) for side in (ours, peer)]
        unit = "per mille of F1"
        made.append(make_row(f"corpus-extract-{name}-{peer.name}", unit, both[:1], both[1:], peer.name, None))
    return made


ROWS = {
    "corpus-extract": (f"pages/s and F1 of main text, against {', '.join(PEERS)}", rows),
    "corpus-extract-more": (f"the same against {', '.join(MORE)}", lambda: rows(MORE)),
}
