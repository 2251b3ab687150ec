"""The page in Chromium: what is said, streamed, stopped, edited, tried again, kept, and what failures look like."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
from fake_server import Drop, Endless, FakeServer, Gate, Refusal, StreamError
from page_driver import Visit, answers, begin, say, users
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow


def test_text_shows_before_the_answer_ends(page: Page, server: FakeServer) -> None:
    gate = Gate()
    server.answers.append(["Once upon ", "a time", gate, " there was a llama."])
    begin(page, "A story")
    expect(page.locator(".answer .prose")).to_have_text("Once upon a time")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    gate.open()
    expect(page.locator(".answer .prose")).to_have_text("Once upon a time there was a llama.")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#announcer")).to_have_text("Answer: Once upon a time there was a llama.")
    stats = page.locator(".answer .stats")
    expect(stats).to_contain_text("first after")
    expect(stats).to_contain_text("prompt of 120, 96 cached")
    assert server.requests[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("how", ["key", "button"])
def test_stopping_closes_the_line_and_keeps_what_came(page: Page, server: FakeServer, how: str) -> None:
    server.answers.append([Endless()])
    begin(page, "Count")
    expect(page.locator(".answer .prose")).to_contain_text("0 1 2 3")
    if how == "key":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop the answer").click()
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    assert server.left.wait(20), "the server saw nobody leave"
    kept = answers(page)[0]
    say(page, "Go on")
    said = server.requests[1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1]["content"].split() == kept.split()


def test_an_edited_message_replaces_what_followed(page: Page, server: FakeServer) -> None:
    for text in ("first", "second", "third"):
        say(page, text)
    page.locator(".user").nth(1).hover()
    page.locator(".user").nth(1).get_by_role("button", name="Edit the message").click()
    field = page.get_by_label("The message, edited")
    expect(field).to_be_focused()
    field.fill("another")
    field.press("Enter")
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator(".answer .prose").last).to_have_text("You said: another")
    assert users(page) == ["first", "another"]
    assert [m["content"] for m in server.requests[-1]["messages"]] == ["first", "You said: first", "another"]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".user")).to_have_count(3)
    assert users(page) == ["first", "second", "third"]


def test_escape_leaves_an_edit_as_it_was(page: Page) -> None:
    say(page, "first")
    page.get_by_label("Message", exact=True).press("ArrowUp")
    field = page.get_by_label("The message, edited")
    expect(field).to_have_value("first")
    field.fill("changed")
    field.press("Escape")
    assert users(page) == ["first"]
    expect(page.get_by_role("button", name="Edit the message")).to_be_focused()


def test_an_answer_can_be_tried_again(page: Page, server: FakeServer) -> None:
    server.answers += [["one"], ["two"]]
    say(page, "Say a number")
    page.get_by_role("button", name="Answer anew").click()
    expect(page.locator(".answer .prose")).to_have_text(["two"])
    assert server.requests[0]["messages"] == server.requests[1]["messages"]


def test_a_try_while_the_answer_runs_leaves_one_answer(page: Page, server: FakeServer) -> None:
    server.answers += [[Endless()], ["calm"]]
    begin(page, "Count")
    expect(page.locator(".answer .prose")).to_contain_text("0 1 2")
    page.get_by_role("button", name="Edit the message").click()
    page.get_by_label("The message, edited").press("Enter")
    expect(page.locator(".answer .prose")).to_have_text(["calm"])
    assert server.left.wait(20)


def test_a_reload_in_mid_answer_loses_nothing(page: Page, server: FakeServer) -> None:
    server.answers.append(["A beginning", Gate()])
    begin(page, "A story")
    expect(page.locator(".answer .prose")).to_have_text("A beginning")
    page.get_by_label("Message", exact=True).fill("not sent yet")
    page.reload()
    expect(page.locator(".answer .prose")).to_have_text("A beginning")
    assert users(page) == ["A story"]
    expect(page.locator(".answer .note")).to_contain_text("What had come by then is kept.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("not sent yet")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .prose")).to_have_text(["You said: A story"])


def test_system_prompt_and_settings_go_with_the_request_and_stay(page: Page, server: FakeServer) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("textbox", name="System prompt").fill("Be brief.")
    for label, value in (("Temperature", "0.7"), ("Top k", "40"), ("Min p", "0.05"), ("Seed", "11")):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("Top p", exact=True).fill("7")
    expect(page.get_by_text("Top p is from 0.01 to 1.")).to_be_visible()
    page.get_by_label("Stop texts").fill("END\nSTOP")
    page.keyboard.press("Escape")
    for _ in range(2):
        say(page, "hi")
        body = server.requests[-1]
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert {name: body.get(name) for name in ("temperature", "top_k", "min_p", "seed")} == {
            "temperature": 0.7,
            "top_k": 40,
            "min_p": 0.05,
            "seed": 11,
        }
        assert "top_p" not in body
        assert body["stop"] == ["END", "STOP"]
        page.reload()
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Leave all to the server").click()
    page.keyboard.press("Escape")
    say(page, "hi")
    assert "temperature" not in server.requests[-1]
    assert "stop" not in server.requests[-1]


FAILURES = [
    (Refusal(429, "the queue is full", "queue_full", {"Retry-After": "7"}), ["Try again in 7 s", "the queue is full"]),
    (Refusal(503, "no memory", "device"), ["as much to do as it can take"]),
    (Refusal(400, "the prompt has 9 tokens, 8 is the most", "context_length_exceeded"), ["longer than the model's"]),
    (Refusal(400, "temperature is -1", "invalid_request"), ["does not take this request", "temperature is -1"]),
    (Refusal(500, "the server failed", "internal_error"), ["Something went wrong in the server"]),
    (["Half an ans", Drop()], ["The connection broke off"]),
    (["Half an ans", StreamError("not finite")], ["Something went wrong in the server", "not finite"]),
]


@pytest.mark.parametrize(("answer", "words"), FAILURES)
def test_failures_are_told_in_words_and_can_be_tried_again(
    visit: Visit, server: FakeServer, answer: object, words: list[str]
) -> None:
    visit.expected = ("Failed to load resource",)
    page = visit.page
    server.answers += [answer, ["All is well."]]  # type: ignore[list-item]
    say(page, "hi")
    for part in words:
        expect(page.locator(".answer .note")).to_contain_text(part)
        expect(page.locator("#announcer")).to_contain_text(part)
    if isinstance(answer, list):
        assert answers(page) == ["Half an ans"]
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .prose")).to_have_text(["All is well."])
    expect(page.locator(".answer .note")).to_be_empty()


def test_a_server_that_is_gone_is_said(visit: Visit) -> None:
    visit.expected = ("ERR_INTERNET_DISCONNECTED",)
    visit.context.set_offline(True)
    say(visit.page, "hi")
    expect(visit.page.locator(".answer .note")).to_contain_text("The server does not answer.")
    visit.context.set_offline(False)
    visit.page.get_by_role("button", name="Try again").click()
    expect(visit.page.locator(".answer .prose")).to_have_text(["You said: hi"])


def test_a_key_is_asked_for_and_kept_where_the_user_says(visit: Visit, server: FakeServer) -> None:
    visit.expected = ("401",)
    server.key = "sesame"
    page = visit.page
    say(page, "hi")
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("does not take the key")
    dialog.get_by_label("Key", exact=True).fill("sesame")
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.locator(".answer .prose")).to_have_text(["You said: hi"])
    assert page.evaluate("Object.values(localStorage).some(value => value.includes('sesame'))") is False
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Set the key").click()
    dialog.get_by_label("Key", exact=True).fill("sesame")
    dialog.get_by_label("Keep it in this browser after the visit").check()
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    assert page.evaluate("localStorage.getItem('herd.key')") == "sesame"


def test_a_model_that_is_being_loaded_is_waited_for(visit: Visit, server: FakeServer) -> None:
    visit.expected = ("503",)
    server.loading = 2
    page = visit.open()
    expect(page.locator("#notice")).to_contain_text("still loading the model")
    expect(page.get_by_role("combobox", name="Model")).to_have_value("tiny")
    expect(page.locator("#notice")).to_be_hidden()


def test_answers_cut_off_say_so(page: Page, server: FakeServer) -> None:
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            content_type="text/event-stream",
            body='data: {"choices":[],"warnings":["top_x is not known here and has no effect"]}\n\n'
            'data: {"choices":[{"delta":{"content":"One"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n',
        ),
    )
    say(page, "count")
    expect(page.locator(".answer .note")).to_contain_text("cut off at the longest")
    expect(page.locator(".answer .note")).to_contain_text("top_x is not known here")
    page.get_by_role("button", name="Let answers be longer").click()
    expect(page.get_by_label("Longest answer")).to_be_focused()


def test_the_model_is_chosen_where_there_are_several(browser: object, server: FakeServer) -> None:
    server.models = ["large", "small"]
    visit = Visit(browser, server.url)  # type: ignore[arg-type]
    visit.page.get_by_role("combobox", name="Model").select_option("small")
    say(visit.page, "hi")
    assert server.requests[-1]["model"] == "small"
    visit.close()
