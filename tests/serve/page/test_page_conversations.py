"""Conversations in one browser: kept, found, renamed, deleted, exported, imported; nothing of them is markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from fake_server import Call, FakeServer, Gate
from page_driver import Visit, answers, begin, say, titles, users
from playwright.sync_api import Page, expect

from herd.serve.app import PAGE
from herd.text.dialogues import read_dialogues
from herd.text.message import Message, ToolCall

pytestmark = pytest.mark.slow

ATTACKS = [
    "<script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    "<svg onload='window.hurt = 1'><iframe srcdoc='<script>parent.hurt=1</script>'>",
    "[click](javascript:window.hurt=1) [data](data:text/html,<script>1</script>) [tab](java\tscript:hurt=1)",
    "![picture](https://evil.example/x.png) <https://evil.example/<b>> [x](https://evil.example/\"onmouseover='hurt=1')",
    "```html\n<script>window.hurt = 1</script>\n```",
    "`<b onclick=hurt=1>` **<i>x</i>** | <u>a</u> |\n|---|\n| <script>hurt=1</script> |",
    "</div></article><style>*{display:none}</style>",
]


def test_conversations_outlive_a_reload_in_their_order(page: Page) -> None:
    say(page, "first of one")
    page.get_by_role("button", name="New conversation").click()
    say(page, "first of two")
    assert titles(page) == ["first of two", "first of one"]
    page.reload()
    expect(page.locator(".user .bubble")).to_have_text("first of two")
    page.get_by_role("button", name="first of one", exact=True).click()
    expect(page.locator(".answer .prose")).to_have_text("You said: first of one")
    say(page, "second of one")
    assert titles(page) == ["first of one", "first of two"]


def test_an_answer_goes_on_while_another_conversation_is_open(page: Page, server: FakeServer) -> None:
    gate = Gate()
    server.answers.append(["The first ", gate, "is done."])
    begin(page, "one")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("img", name="answering")).to_be_visible()
    say(page, "two")
    gate.open()
    expect(page.get_by_role("img", name="answering")).to_have_count(0)
    assert answers(page) == ["You said: two"]
    page.get_by_role("button", name="one", exact=True).click()
    expect(page.locator(".answer .prose")).to_have_text("The first is done.")


def test_names_are_changed_and_conversations_deleted_and_brought_back(page: Page) -> None:
    say(page, "a question")
    page.get_by_role("button", name="Rename: a question").click()
    field = page.get_by_label("Name of the conversation")
    expect(field).to_be_focused()
    field.fill("A better name")
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("A better name")
    page.get_by_role("button", name="Rename: A better name").click()
    field.fill("not this one")
    field.press("Escape")
    assert titles(page) == ["A better name"]
    page.get_by_role("button", name="Delete: A better name").click()
    expect(page.locator(".empty")).to_be_visible()
    assert titles(page) == []
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".user .bubble")).to_have_text("a question")
    page.get_by_role("button", name="Delete: A better name").click()
    page.reload()
    expect(page.locator(".empty")).to_be_visible()
    assert titles(page) == []


def test_search_finds_words_of_names_and_messages(page: Page, server: FakeServer) -> None:
    server.answers += [["A llama is a camelid."], ["Bern is a town."]]
    say(page, "What is it?")
    page.get_by_role("button", name="New conversation").click()
    say(page, "And this?")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.type("CAMELID llama")
    assert titles(page) == ["What is it?"]
    expect(page.locator(".snippet")).to_contain_text("A llama is a camelid")
    expect(page.locator("#announcer")).to_have_text("1 conversation found")
    page.get_by_label("Search conversations").fill("nowhere")
    expect(page.locator("#conversations")).to_have_text("Nothing has these words.")


def test_another_window_sees_what_this_one_says(visit: Visit) -> None:
    say(visit.page, "from here")
    other = visit.open()
    expect(other.locator(".user .bubble")).to_have_text("from here")
    say(other, "from there")
    expect(visit.page.locator(".user")).to_have_count(2)
    expect(visit.page.locator(".answer .prose").last).to_have_text("You said: from there")


def export(page: Page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_exported_conversations_are_dialogues_that_herd_trains_on(
    page: Page, server: FakeServer, tmp_path: Path
) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("textbox", name="System prompt").fill("Be brief.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Tools").click()
    server.answers += [
        ["Two sums. ", Call("calculator", {"expression": "1+1"}), Call("calculator", {"expression": "2+2"})],
        ["2 and 4"],
    ]
    say(page, "Sums, please: สวัสดี 🦙")
    path = export(page, tmp_path)
    (record,) = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert record["title"] == "Sums, please: สวัสดี 🦙"
    (dialogue,) = read_dialogues(path)
    system, *rest = dialogue
    assert system.role == "system"
    assert system.content.endswith("Be brief.")
    assert '"name": "calculator"' in system.content
    assert rest == [
        Message("user", "Sums, please: สวัสดี 🦙"),
        Message("assistant", "Two sums. ", (ToolCall("calculator", {"expression": "1+1"}),)),
        Message("ipython", "2"),
        Message("assistant", "", (ToolCall("calculator", {"expression": "2+2"}),)),
        Message("ipython", "4"),
        Message("assistant", "2 and 4"),
    ]
    # And back again: what comes in is what went out.
    page.get_by_role("button", name="Delete: Sums").click()
    page.locator("#file").set_input_files(path)
    expect(page.locator(".user .bubble")).to_have_text("Sums, please: สวัสดี 🦙")
    expect(page.locator(".call")).to_have_count(2)
    again = export(page, tmp_path / "again")
    assert json.loads(again.read_text(encoding="utf-8")) == record


def take_in(page: Page, lines: list[Any]) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    file: Any = {"name": "x.jsonl", "mimeType": "application/jsonl", "buffer": text.encode()}
    page.locator("#file").set_input_files(file)


def test_dialogues_of_other_tools_come_in_and_bad_lines_are_named(page: Page) -> None:
    parts = [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
    call = {"name": "add", "arguments": {"a": 1}}
    good = {
        "messages": [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "ipython", "content": {"sum": 1}},
            {"role": "assistant", "content": "One."},
        ]
    }
    take_in(page, ["{", good, "", {"messages": []}, {"messages": [{"role": "wizard", "content": "x"}]}])
    expect(page.locator("#toast")).to_contain_text("1 conversation imported. Not read: Line 1: this is not JSON.")
    expect(page.locator("#toast")).to_contain_text("And 2 lines more.")
    assert users(page) == ["in parts"]
    expect(page.locator(".call").get_by_label("Result")).to_have_text('{"sum":1}')
    assert answers(page)[-1] == "One."


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_a_model_or_a_user_writes_is_read_as_markup(page: Page, server: FakeServer, attack: str) -> None:
    server.answers.append([attack, Call(attack[:64], {"x": attack})])
    say(page, attack)
    page.get_by_role("button", name="Rename:").click()
    page.get_by_label("Name of the conversation").fill(attack.replace("\n", " "))
    page.keyboard.press("Enter")
    page.reload()
    expect(page.locator(".user")).to_have_count(1)
    assert users(page) == [attack]
    assert page.evaluate("window.hurt") is None
    strange = "#main :is(script, img, iframe, style, u, b, i, [onclick], [onerror], [onload], [srcdoc], [style*=none])"
    assert page.locator(strange).count() == 0
    for link in page.locator(".answer a").all():
        assert re.match("https?://", link.get_attribute("href") or "")
        assert link.get_attribute("rel") == "noopener noreferrer"
    assert "<" not in attack or "<" in page.locator(".answer").inner_text()


def test_the_sources_hold_no_way_to_read_text_as_markup() -> None:
    for path in PAGE.rglob("*.js"):
        source = path.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in source.replace("No eval:", ""), f"{path.name} has {word}"
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", html)


def test_a_full_browser_is_said_and_the_conversation_goes_on(visit: Visit) -> None:
    page = visit.page
    page.evaluate(
        """() => { IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };
                   Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"""
    )
    say(page, "hi")
    expect(page.locator("#notice")).to_contain_text("no room left")
    assert answers(page) == ["You said: hi"]
    say(page, "again")
    assert answers(page)[-1] == "You said: again"


def test_a_browser_that_keeps_nothing_is_said(visit: Visit) -> None:
    visit.context.add_init_script("Object.defineProperty(window, 'indexedDB', {get() { throw new Error('off') }})")
    page = visit.open()
    expect(page.locator("#notice")).to_contain_text("keeps nothing for this page")
    say(page, "hi")
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="hi", exact=True).click()
    assert answers(page) == ["You said: hi"]


def test_damaged_preferences_are_left_aside(visit: Visit) -> None:
    for damage in ("{", "[]", '{"sampling": [], "ownTools": {}, "drafts": 3}', "null"):
        visit.page.evaluate("(text) => localStorage.setItem('herd.preferences', text)", damage)
        visit.page.reload()
        say(visit.page, "hi")
