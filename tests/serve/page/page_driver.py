"""A person at the page: says things, reads answers; and what must hold whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page, Route


class Visit:
    """A window of the browser on the page. Requests to elsewhere and console errors are kept, and `close` fails then.

    `expected` holds parts of console errors that a test brings about.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.outside: list[str] = []
        self.problems: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.set_default_timeout(20_000)
        self.context.route("**/*", self._pass)
        self.page = self.open()

    def open(self) -> Page:
        """One more tab."""
        page = self.context.new_page()
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(self.url)
        page.locator("#thread > *").first.wait_for()
        return page

    def _pass(self, route: Route) -> None:
        if route.request.url.startswith((self.url, "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def close(self) -> None:
        self.context.close()
        assert not self.outside, self.outside
        problems = [text for text in self.problems if not any(part in text for part in self.expected)]
        assert not problems, problems


def say(page: Page, text: str) -> None:
    """Say something, and wait for the end of the answer."""
    begin(page, text)
    page.locator("#send").wait_for()


def begin(page: Page, text: str) -> None:
    """Say something; the answer has begun."""
    before = page.locator(".message").count()
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.locator(".message").nth(before + 1).wait_for(state="attached")


def answers(page: Page) -> list[str]:
    return page.locator(".answer .prose").all_inner_texts()


def users(page: Page) -> list[str]:
    return page.locator(".user .bubble").all_inner_texts()


def titles(page: Page) -> list[str]:
    return page.locator("#conversations .name").all_inner_texts()
