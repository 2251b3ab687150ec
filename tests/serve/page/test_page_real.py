"""The page and the real server: a tiny random model behind it, and one that calls a tool as Llama 3.1 writes it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from page_driver import Visit, answers, begin, say
from playwright.sync_api import Browser, expect
from serving import SETTINGS, Scripted, engine_backend, running, wait_until

pytestmark = pytest.mark.slow


def test_a_model_answers_and_its_second_turn_is_cached(browser: Browser, tokenizer: Any) -> None:
    backend = engine_backend(tokenizer)
    with running(backend, SETTINGS) as server:
        visit = Visit(browser, f"{server.url}/")
        page = visit.page
        page.get_by_role("button", name="Settings").click()
        page.get_by_role("textbox", name="System prompt").fill("Answer in the words that you have seen. " * 3)
        for label, value in (("Temperature", "0"), ("Longest answer", "24"), ("Seed", "3")):
            page.get_by_label(label, exact=True).fill(value)
        page.keyboard.press("Escape")
        say(page, "The quick brown fox")
        expect(page.locator(".answer .stats")).to_contain_text("tokens · ")
        first = answers(page)
        say(page, "says hello")
        expect(page.locator(".answer .stats").last).to_contain_text("cached")
        expect(page.locator("#room")).to_contain_text("of 1,024 tokens")
        assert answers(page)[0] == first[0]
        page.reload()
        page.locator(".answer").nth(1).wait_for()
        assert answers(page)[0] == first[0]
        visit.close()


def test_stopping_ends_the_work_in_the_engine(browser: Browser, tokenizer: Any) -> None:
    backend = engine_backend(tokenizer)
    with running(backend, SETTINGS) as server:
        visit = Visit(browser, f"{server.url}/")
        page = visit.page
        page.route("**/v1/chat/completions", lambda route: route.continue_(post_data=_endless(route.request.post_data)))
        begin(page, "Go on and on")
        wait_until(lambda: backend.load.running == 1)
        page.keyboard.press("Escape")
        expect(page.locator(".answer .note")).to_have_text("Stopped.")
        wait_until(lambda: backend.load.running == 0)
        visit.close()


def _endless(body: str | None) -> str:
    return (body or "").removesuffix("}") + ', "ignore_eos": true, "max_tokens": 900}'


def test_a_call_as_llama_writes_it_is_carried_out(browser: Browser, tokenizer: Any) -> None:
    call = '{"type": "function", "name": "calculator", "parameters": {"expression": "6 * 7"}}'
    reply = [tokenizer.special("<|python_tag|>"), call, tokenizer.eom]
    backend = Scripted(tokenizer, [reply, "It is **42**."])
    with running(backend, SETTINGS) as server:
        visit = Visit(browser, f"{server.url}/")
        visit.page.get_by_role("button", name="Tools").click()
        say(visit.page, "What is six times seven?")
        expect(visit.page.locator(".answer .prose strong")).to_have_text("42")
        expect(visit.page.locator(".call").get_by_label("Result")).to_have_text("42")
        asked = tokenizer.decode(backend.asked[1].prompt)
        assert '"name": "convert_units"' in asked
        assert asked.endswith("<|start_header_id|>ipython<|end_header_id|>\n\n42<|eot_id|>" + _OPEN)
        visit.close()


_OPEN = "<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_the_key_and_the_context_are_the_real_servers(browser: Browser, tokenizer: Any) -> None:
    with running(engine_backend(tokenizer), SETTINGS, keys=["sesame"]) as server:
        visit = Visit(browser, f"{server.url}/")
        visit.expected = ("401", "400")
        page = visit.page
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Key", exact=True).fill("sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("combobox", name="Model")).to_have_value("tiny")
        say(page, "word " * 3000)
        expect(page.locator(".answer .note")).to_contain_text("longer than the model's context")
        expect(page.locator(".answer .note")).to_contain_text("is the most here")
        visit.close()
