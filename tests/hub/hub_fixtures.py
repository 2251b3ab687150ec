"""Fixtures of every test that speaks to a hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_server import SECRET, Server, serving

from herd.hub.client import Hub


class Noting:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, *_: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture
def hub(server: Server) -> Hub:
    """The hub as nobody: no token of this machine is sent."""
    return Hub(server.url, token="")


@pytest.fixture
def friend(server: Server) -> Hub:
    return Hub(server.url, token=SECRET)
