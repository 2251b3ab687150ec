"""Refusals and warnings, as OpenAI's official Python client shows them."""

from __future__ import annotations

import openai
import pytest
from serving import ASK, NAME, WEATHER


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
        ({"temperature": -1}, 400, "invalid_request", "temperature"),
        ({"n": 1000}, 400, None, "n"),
        ({"stop": ["a"] * 17}, 400, None, "stop"),
        ({"logit_bias": {"99999": 1}}, 400, None, "logit_bias"),
        ({"top_logprobs": 3}, 400, None, "top_logprobs"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "user", "content": "fox " * 2000}]}, 400, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "7"}]}, 400, None, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "unsupported_content",
            "messages[0].content[0]",
        ),
        (
            {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}},
            400,
            "unsupported_parameter",
            None,
        ),
        ({"functions": [{"name": "f"}]}, 400, "unsupported_parameter", "functions"),
        ({"tools": [WEATHER, WEATHER]}, 400, None, "tools"),
        ({"tool_choice": "required"}, 400, None, "tool_choice"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_errors_say_what_is_wrong_in_openai_s_form(client, changes, status, code, param):
    body = {"model": NAME, "messages": ASK} | changes
    with pytest.raises(openai.APIStatusError) as raised:
        client.post("/chat/completions", body=body, cast_to=object)
    error = raised.value
    assert error.status_code == status
    assert error.body["message"]
    assert error.type == ("not_found_error" if status == 404 else "invalid_request_error")
    assert code is None or error.code == code
    assert param is None or error.param == param


def test_a_prompt_that_is_too_long_says_how_long_it_may_be(client):
    with pytest.raises(openai.BadRequestError, match="1023 is the most"):
        client.completions.create(model=NAME, prompt="fox " * 2000)


def test_what_has_no_effect_says_so(client):
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=ASK, max_tokens=5000, extra_body={"wibble": 1, "user": "me", "store": False}
    )
    said = raw.parse().warnings
    assert len(said) == 2
    assert "wibble" in said[0]
    assert "5000" in said[1]
    assert raw.headers["x-herd-warnings"] == "; ".join(said)
    chunks = list(client.chat.completions.create(model=NAME, messages=ASK, stream=True, extra_body={"wibble": 1}))
    assert chunks[0].warnings == said[:1]


def test_messages_say_what_of_them_has_no_effect_and_what_cannot_be(client):
    named = [{"role": "user", "content": "hello", "name": "Ada", "wobble": 1}]
    answer = client.chat.completions.create(model=NAME, messages=named, max_tokens=2)
    assert answer.warnings == [
        "messages[0].wobble is not known here and has no effect",
        "messages[0].name has no effect",
    ]
    for key, value in (("audio", {"id": "x"}), ("function_call", {"name": "f", "arguments": "{}"})):
        heard = [{"role": "assistant", "content": "x", key: value}, *ASK]
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model=NAME, messages=heard)
        assert raised.value.param == f"messages[0].{key}"
