"""Tools in the page: carried out by it or answered by the user, shown, and gone on from."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from fake_server import Call, FakeServer
from page_driver import answers, begin, say
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

WEATHER = {
    "name": "weather",
    "description": "The weather in a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def add_tool(page: Page, definition: Any) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Add a tool").click()
    page.get_by_label("Definition (JSON)").fill(definition if isinstance(definition, str) else json.dumps(definition))
    page.get_by_role("button", name="Keep the tool").click()


def test_the_page_carries_out_its_own_tools_and_the_model_goes_on(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Tools").click()
    server.answers += [["Let me see. ", Call("calculator", {"expression": "6 * 7"})], ["It is 42."]]
    say(page, "What is six times seven?")
    expect(page.locator(".answer .prose").last).to_have_text("It is 42.")
    card = page.locator(".call")
    expect(card).to_contain_text("calculator")
    expect(card).to_contain_text("expression: 6 * 7")
    expect(card.get_by_label("Result")).to_have_text("42")
    names = [tool["function"]["name"] for tool in server.requests[0]["tools"]]
    assert names == ["calculator", "current_time", "convert_units"]
    call = {
        "id": "call_calculator_0",
        "type": "function",
        "function": {"name": "calculator", "arguments": '{"expression": "6 * 7"}'},
    }
    assert server.requests[1]["messages"][1:] == [
        {"role": "assistant", "content": "Let me see. ", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_calculator_0", "content": "42"},
    ]


def test_without_tools_none_are_sent(page: Page, server: FakeServer) -> None:
    say(page, "hi")
    assert "tools" not in server.requests[0]


def test_a_tool_that_is_switched_off_is_not_offered(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("switch", name="Let the model call tools").check()
    page.get_by_role("checkbox", name="calculator").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Tools")).to_have_attribute("aria-pressed", "true")
    say(page, "hi")
    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == ["current_time", "convert_units"]


def test_errors_of_a_tool_are_its_result(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Tools").click()
    server.answers += [[Call("calculator", {"expression": "1 / 0"})], ["I cannot."]]
    say(page, "Divide")
    expect(page.locator(".answer .prose").last).to_have_text("I cannot.")
    expect(page.locator(".call")).to_contain_text("failed")
    assert server.requests[1]["messages"][-1]["content"] == "Error: division by zero"


def test_the_user_answers_for_a_tool_of_theirs_even_after_a_reload(page: Page, server: FakeServer) -> None:
    add_tool(page, WEATHER)
    page.keyboard.press("Escape")
    server.answers += [[Call("weather", {"town": "Bern"})], ["Sunny in Bern."]]
    say(page, "How is the weather?")
    assert server.requests[0]["tools"][-1] == {"type": "function", "function": WEATHER}
    page.reload()
    expect(page.locator(".call")).to_contain_text("waits for your result")
    field = page.get_by_label("Result of weather")
    field.fill("18 °C, sunny")
    field.press("Enter")
    expect(page.locator(".answer .prose").last).to_have_text("Sunny in Bern.")
    assert server.requests[1]["messages"][-1]["content"] == "18 °C, sunny"


def test_parallel_calls_are_all_answered_before_the_model_goes_on(page: Page, server: FakeServer) -> None:
    add_tool(page, WEATHER)
    page.keyboard.press("Escape")
    calls = [
        Call("weather", {"town": "Bern"}),
        Call("calculator", {"expression": "1+1"}),
        Call("weather", {"town": "Thun"}),
    ]
    server.answers += [calls, ["Both are sunny."]]
    say(page, "And?")
    fields = page.get_by_label("Result of weather")
    expect(fields).to_have_count(2)
    fields.first.fill("one")
    page.get_by_role("button", name="Give the result").first.click()
    expect(fields).to_have_count(1)
    assert len(server.requests) == 1
    fields.first.fill("two")
    page.get_by_role("button", name="Give the result").click()
    expect(page.locator(".answer .prose").last).to_have_text("Both are sunny.")
    results = {m["tool_call_id"]: m["content"] for m in server.requests[1]["messages"] if m["role"] == "tool"}
    assert results == {"call_weather_0": "one", "call_calculator_1": "2", "call_weather_2": "two"}


def test_another_message_instead_of_a_result_is_told_to_the_model(page: Page, server: FakeServer) -> None:
    add_tool(page, WEATHER)
    page.keyboard.press("Escape")
    server.answers += [[Call("weather", {"town": "Bern"})], ["All right."]]
    say(page, "And?")
    say(page, "Never mind")
    assert [m["role"] for m in server.requests[1]["messages"]] == ["user", "assistant", "tool", "user"]
    assert "no result" in server.requests[1]["messages"][2]["content"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{", "This is not JSON"),
        ("[]", 'It needs a "name"'),
        ('{"name": "a b"}', 'It needs a "name" of letters'),
        ('{"name": "a", "parameters": {"type": "string"}}', 'of "type": "object"'),
    ],
)
def test_definitions_that_are_none_are_refused(page: Page, source: str, words: str) -> None:
    add_tool(page, source)
    expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(page.get_by_role("dialog", name="A tool of yours")).to_be_visible()


def test_tools_are_edited_and_deleted(page: Page) -> None:
    add_tool(page, {"type": "function", "function": WEATHER})
    page.get_by_role("button", name="Add a tool").click()
    page.get_by_label("Definition (JSON)").fill(json.dumps(WEATHER))
    page.get_by_role("button", name="Keep the tool").click()
    expect(page.get_by_text("There is a tool named weather already.")).to_be_visible()
    page.get_by_role("dialog", name="A tool of yours").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Edit weather").click()
    page.get_by_label("Definition (JSON)").fill(json.dumps(WEATHER | {"name": "climate"}))
    page.get_by_role("button", name="Keep the tool").click()
    expect(page.get_by_role("checkbox", name="climate")).to_be_checked()
    page.get_by_role("button", name="Delete climate").click()
    expect(page.locator(".own-row")).to_have_count(0)
    expect(page.get_by_role("button", name="Add a tool")).to_be_focused()


def test_a_model_that_only_calls_is_stopped_in_the_end(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Tools").click()
    server.answers += [[Call("calculator", {"expression": "1"})] for _ in range(12)]
    begin(page, "Loop")
    expect(page.locator(".answer .note").last).to_contain_text("called tools many times in a row")
    assert len(server.requests) == 12
    assert answers(page)[-1] == ""
