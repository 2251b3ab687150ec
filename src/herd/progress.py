"""How long work tells where it stands: a protocol on the ground floor, so that no room knows a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Fact = float | int | str


class Progress(Protocol):
    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        """`done` of `total` `unit`s; `facts` are the figures of the moment, e.g. {"loss": 2.31, "tokens/s": 9100}."""

    def note(self, text: str) -> None:
        """A line worth keeping in the log: a warning, a count, a result."""


class Silent:
    """Progress that nobody watches: tests and library use."""

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        pass
