"""The page for everybody: names and roles, keyboard, contrast, small screens, all scripts, less motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from fake_server import Call, FakeServer, Gate, Refusal
from page_driver import Visit, answers, begin, say
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.slow

LONG = "a" * 300
EVERYTHING = f"""# Heading {LONG}

Text with `code {LONG}` and [a link](https://example.org/{LONG}), **bold**, *italic*.

> quoted

| a | b | c | d | e | f | g | h |
|---|---|---|---|---|---|---|---|
| {LONG} | 2 | 3 | 4 | 5 | 6 | 7 | 8 |

- item {LONG}

```python
def f(x):  # {LONG}
    return "text" + 12
```
"""

CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text(encoding="utf-8")


def fill(page: Page, server: FakeServer) -> None:
    """A conversation with some of everything."""
    page.get_by_role("button", name="Tools").click()
    server.answers += [[EVERYTHING, Call("calculator", {"expression": "1+1"})], [Call("own", {"x": LONG})]]
    say(page, f"Show me everything {LONG}")
    server.answers.append(Refusal(400, "no"))
    say(page, "And an error")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(browser: Browser, server: FakeServer, scheme: Any) -> None:
    visit = Visit(browser, server.url, color_scheme=scheme)
    visit.expected = ("400",)
    page = visit.page
    seen = page.evaluate(CONTRASTS)
    fill(page, server)
    seen += page.evaluate(CONTRASTS)
    page.get_by_role("button", name="Settings").click()
    seen += page.evaluate(CONTRASTS)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    seen += page.evaluate(CONTRASTS)
    assert len(seen) > 100
    assert [entry for entry in seen if entry[0] < 4.5] == []
    visit.close()


def test_the_theme_is_switched_and_kept(visit: Visit) -> None:
    page = visit.page
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    switch = page.get_by_role("button", name="Theme:")
    expect(switch).to_have_accessible_name("Theme: as the system")
    switch.click()
    expect(switch).to_have_accessible_name("Theme: light")
    switch.click()
    expect(switch).to_have_accessible_name("Theme: dark")
    dark = page.evaluate(paper)
    assert dark != before
    page.reload()
    assert page.evaluate(paper) == dark
    page.get_by_role("button", name="Theme:").click()
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) == dark


@pytest.mark.parametrize("width", [390, 320, 1280])
def test_nothing_runs_over_the_side(browser: Browser, server: FakeServer, width: int) -> None:
    visit = Visit(browser, server.url, viewport={"width": width, "height": 800})
    visit.expected = ("400",)
    page = visit.page
    wide = """() => [...document.querySelectorAll('html, body, #scroll, #sidebar, dialog[open]')]
        .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.id || e.localName)"""
    assert page.evaluate(wide) == []
    fill(page, server)
    assert page.evaluate(wide) == []
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate(wide) == []
    page.keyboard.press("Escape")
    if width < 800:
        expect(page.get_by_role("navigation")).to_have_count(0)
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        assert page.evaluate(wide) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    visit.close()


def test_everything_can_be_done_by_keyboard(page: Page, server: FakeServer) -> None:
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    page.locator(".answer-foot").wait_for()
    assert answers(page) == ["You said: line one\nline two"]
    assert server.requests[0]["messages"][-1]["content"] == "line one\nline two"
    page.keyboard.press("Control+,")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    expect(page.locator(".empty")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    # The first stop is the way past the list, and Tab comes by everything there is, in the order of the page.
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the message field")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_tab_comes_by_every_control_in_order(page: Page) -> None:
    say(page, "hi")
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => { const e = document.activeElement;
               return e === document.body ? '' : e.ariaLabel || e.labels?.[0]?.textContent || e.textContent.trim(); }"""
        )
        if not name:
            break
        names.append(name)
    expected = [
        *("Skip to the message field", "New conversation", "Search conversations", "hi", "Rename: hi", "Export: hi"),
        *("Delete: hi", "Import", "Export all", "Theme: as the system", "Help and shortcuts", "Settings"),
        *(
            "Copy the message",
            "Edit the message",
            "Copy the answer",
            "Answer anew",
            "Message",
            "Tools",
            "System prompt",
        ),
    ]
    # Chromium lets a scroller be reached too; it has no name of its own.
    assert [name for name in names if name in expected] == expected


def test_while_composing_enter_sends_nothing(page: Page, server: FakeServer) -> None:
    page.get_by_label("Message", exact=True).fill("にほ")
    page.evaluate(
        """() => document.getElementById('message').dispatchEvent(
             new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"""
    )
    say(page, "にほん")
    assert len(server.requests) == 1


def test_names_and_roles(page: Page, server: FakeServer) -> None:
    for role, name in (
        ("navigation", "Conversations"),
        ("main", None),
        ("textbox", "Message"),
        ("button", "Send"),
        ("searchbox", "Search conversations"),
        ("heading", "New conversation"),
    ):
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)  # type: ignore[arg-type]
    gate = Gate()
    server.answers.append(["Half", gate, " and all"])
    begin(page, "hi")
    expect(page.get_by_role("article", name="You")).to_have_count(1)
    answer = page.get_by_role("article", name="Answer")
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(page.locator("#announcer")).to_have_text("")  # pieces are not read out one by one
    gate.open()
    expect(page.locator("#announcer")).to_have_text("Answer: Half and all")
    assert page.locator("button:not([aria-label]):empty").count() == 0
    unnamed = """() => [...document.querySelectorAll('button, input, textarea, select')]
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.hidden)).map((e) => e.id)"""
    assert page.evaluate(unnamed) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_every_script_runs_its_own_way(page: Page, server: FakeServer) -> None:
    server.answers.append(["مرحبا بالعالم\n\n- واحد\n\nHello\n\nสวัสดีชาวโลก\n\nनमस्ते दुनिया"])
    say(page, "قل مرحبا")
    directions = page.evaluate(
        "[...document.querySelectorAll('.prose > *, .bubble')].map((e) => getComputedStyle(e).direction)"
    )
    assert directions == ["rtl", "rtl", "rtl", "ltr", "ltr", "ltr"]


def test_nothing_moves_where_less_motion_is_wanted(browser: Browser, server: FakeServer) -> None:
    for motion, expected in (("reduce", 0), ("no-preference", 1)):
        visit = Visit(browser, server.url, reduced_motion=motion)
        gate = Gate()
        server.answers.append([gate])
        begin(visit.page, "hi")
        visit.page.locator(".waiting").wait_for()
        assert (
            visit.page.evaluate("document.querySelector('.waiting').getAnimations({subtree: true}).length") == expected
        )
        gate.open()
        visit.page.locator("#send").wait_for()
        visit.close()


def test_the_end_is_followed_unless_the_reader_looks_elsewhere(page: Page, server: FakeServer) -> None:
    long = "".join(f"line {n}\n\n" for n in range(80))
    gate = Gate()
    server.answers.append([long, gate, long, "the end"])
    begin(page, "go")
    rest = "(({ scrollHeight, clientHeight, scrollTop }) => scrollHeight - clientHeight - scrollTop)"
    place = f"{rest}(document.getElementById('scroll'))"
    expect(page.get_by_text("line 79")).to_be_in_viewport()
    page.locator("#scroll").hover()
    page.mouse.wheel(0, -1500)
    expect(page.get_by_role("button", name="Latest")).to_be_visible()
    at = page.evaluate("document.getElementById('scroll').scrollTop")
    gate.open()
    page.locator("#send").wait_for()
    assert page.evaluate("document.getElementById('scroll').scrollTop") == at
    page.get_by_role("button", name="Latest").click()
    assert page.evaluate(place) <= 1
    expect(page.get_by_text("the end", exact=True)).to_be_in_viewport()
    assert answers(page)[0].endswith("the end")
