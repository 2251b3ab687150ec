"""A browser, a server that answers by script, and the page in a window of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_server import FakeServer
    from page_driver import Visit
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One a file, not one a session: while Playwright runs, this thread has an event loop, and no other may start."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def one_server() -> Iterator[FakeServer]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from fake_server import FakeServer

    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def server(one_server: FakeServer) -> FakeServer:
    one_server.reset()
    return one_server


@pytest.fixture
def visit(browser: Browser, server: FakeServer) -> Iterator[Visit]:
    from page_driver import Visit

    visit = Visit(browser, server.url)
    yield visit
    visit.close()


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
