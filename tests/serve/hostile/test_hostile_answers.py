"""Answers too large for one event loop."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import NAME, Scripted, engine_backend, quick, running

from herd.commands.serve import name_of
from herd.serve.replies import dumps, in_pieces
from herd.serve.wire.chat import ChatRequest
from herd.serve.wire.completions import CompletionRequest

TALK = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.integers(0, 8))
def test_json_in_pieces_is_the_same_json(value, depth):
    assert b"".join(in_pieces(value, depth)) == dumps(value)


def test_long_lists_of_numbers_are_pieces_too():
    value = {"tokens": list(range(10_000))}
    assert b"".join(in_pieces(value)) == dumps(value)
    assert max(len(piece) for piece in in_pieces(value)) < 25_000


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (
            "/v1/chat/completions",
            TALK | {"n": 64, "logprobs": True, "top_logprobs": 20, "max_tokens": 1000},
            ChatRequest,
        ),
        (
            "/v1/completions",
            {"model": NAME, "prompt": ["x"] * 64, "logprobs": 20, "max_tokens": 1000},
            CompletionRequest,
        ),
        (
            "/v1/completions",
            {"model": NAME, "prompt": [[1] * 900] * 64, "logprobs": 20, "echo": True},
            CompletionRequest,
        ),
    ],
)
def test_more_log_probabilities_than_memory_has_room_for_are_refused(tokenizer, path, body, kind):
    kind.model_validate(body)  # it is the number that is refused
    with running(Scripted(tokenizer, ["Hi"])) as server:
        answer = httpx.post(server.url + path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")
        assert httpx.post(server.url + path, json=body | {"logprobs": None, "top_logprobs": None}).status_code == 200


def test_warnings_stand_in_every_kind_of_answer(tokenizer):
    asked = {
        "/v1/chat/completions": TALK,
        "/v1/completions": {"model": NAME, "prompt": "Hi"},
        "/v1/responses": {"model": NAME, "input": "Hi"},
        "/v1/embeddings": {"model": NAME, "input": "Hi"},
        "/tokenize": {"prompt": "Hi"},
        "/detokenize": {"tokens": [1, 2]},
    }
    with running(Scripted(tokenizer, ["Hi"])) as server:
        for path, body in asked.items():
            answer = httpx.post(server.url + path, json=body | {"nonsense": 1})
            assert "nonsense" in answer.json()["warnings"][0], path
            assert "nonsense" in answer.headers["x-herd-warnings"], path
            assert "warnings" not in {k: v for k, v in httpx.post(server.url + path, json=body).json().items() if v}, (
                path
            )


def test_no_answer_is_longer_than_the_server_allows(tokenizer):
    with running(engine_backend(tokenizer), quick(max_answer_tokens=5)) as server:
        for asked in ({"max_tokens": 900}, {}):
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=TALK | {"ignore_eos": True} | asked).json()
            assert answer["usage"]["completion_tokens"] == 5
            assert ("warnings" in answer) == bool(asked)


def test_a_model_is_called_by_the_name_that_it_was_given_by(tmp_path, monkeypatch):
    folder, link = tmp_path / "round-2-a07cd9492c8e", tmp_path / "flagship"
    folder.mkdir()
    link.symlink_to(folder)
    monkeypatch.chdir(folder)
    assert [name_of(Path(text)) for text in (str(link), f"{link}/", ".", "../flagship")] == [
        "flagship",
        "flagship",
        folder.name,
        "flagship",
    ]
