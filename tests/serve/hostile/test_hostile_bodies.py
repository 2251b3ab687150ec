"""Bodies within the limit that would take all memory or hold everybody up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from pydantic import BaseModel, ValidationError

from herd.errors import HerdError
from herd.serve.backend import Served
from herd.serve.messages import messages_of
from herd.serve.replies import ApiError
from herd.serve.sampling import sampling_of, warnings_of
from herd.serve.settings import ServeSettings
from herd.serve.wire.chat import ChatMessage, ChatRequest
from herd.serve.wire.completions import CompletionRequest
from herd.serve.wire.responses import ResponsesRequest
from herd.serve.wire.texts import DetokenizeRequest, EmbeddingRequest, TokenizeRequest

MANY = 100_000
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TALK = ChatMessage.model_validate({"role": "user", "content": "Hi"})
FLOODS: list[tuple[type[BaseModel], dict[str, object]]] = [
    (ChatRequest, CHAT | {"messages": [0] * MANY}),
    (ChatRequest, CHAT | {"messages": [{"role": "user", "content": "Hi"}] * MANY}),
    (ChatRequest, CHAT | {"messages": [{"role": "user", "content": [{}] * MANY}]}),
    (ChatRequest, CHAT | {"messages": [{"role": "assistant", "tool_calls": [0] * MANY}]}),
    (ChatRequest, CHAT | {"tools": [0] * MANY}),
    (ChatRequest, CHAT | {"stop": [0] * MANY}),
    (ChatRequest, CHAT | {"stop_token_ids": [-1] * MANY}),
    (ChatRequest, CHAT | {"guided_choice": [0] * MANY}),
    (ChatRequest, CHAT | {"structured_outputs": {"choice": [0] * MANY}}),
    (ChatRequest, CHAT | {"logit_bias": {str(i): "much" for i in range(MANY)}}),
    (ChatRequest, CHAT | {"logit_bias": {str(i): 101 for i in range(MANY)}}),
    (CompletionRequest, {"model": "m", "prompt": [[]] * MANY}),
    (CompletionRequest, {"model": "m", "prompt": [[1]] * MANY}),
    (CompletionRequest, {"model": "m", "prompt": [-1] * MANY}),
    (CompletionRequest, {"model": "m", "prompt": [1.5] * MANY}),
    (EmbeddingRequest, {"model": "m", "input": [""] * MANY}),
    (EmbeddingRequest, {"model": "m", "input": [None] * MANY}),
    (ResponsesRequest, {"model": "m", "input": [0] * MANY}),
    (ResponsesRequest, {"model": "m", "input": "Hi", "tools": [0] * MANY}),
    (ResponsesRequest, {"model": "m", "input": "Hi", "include": [0] * MANY}),
    (ResponsesRequest, {"model": "m", "input": "Hi", "metadata": {str(i): 0 for i in range(MANY)}}),
    (TokenizeRequest, {"messages": [0] * MANY}),
    (DetokenizeRequest, {"tokens": ["1"] * MANY}),
]


@pytest.mark.parametrize(("kind", "body"), FLOODS)
def test_of_a_hundred_thousand_wrong_elements_one_is_told(kind: type[BaseModel], body: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    assert found.value.error_count() < 10  # members of a union tell one each


def test_every_list_and_mapping_of_a_request_is_bounded() -> None:
    """Whoever adds a field finds out here."""
    kinds = (ChatRequest, CompletionRequest, EmbeddingRequest, ResponsesRequest, TokenizeRequest, DetokenizeRequest)
    unbounded = {place for kind in kinds for place in _unbounded_lists(kind.model_json_schema(), kind.__name__)}
    assert not unbounded


def _unbounded_lists(schema: object, place: str) -> Iterator[str]:
    if isinstance(schema, list):
        for part in schema:
            yield from _unbounded_lists(part, place)
    if isinstance(schema, dict):
        if schema.get("type") == "array" and "maxItems" not in schema:
            yield place
        for name, part in schema.items():
            yield from _unbounded_lists(part, f"{place}.{name}")


def test_of_many_unknown_fields_some_are_named() -> None:
    body = ChatRequest.model_validate(CHAT | {f"unknown{i}": 1 for i in range(MANY)})
    warnings = warnings_of(body)
    assert len(warnings) == 21
    assert f"{MANY - 20} more" in warnings[-1]


def test_a_stop_text_as_long_as_a_book_is_refused(tokenizer) -> None:
    served = Served(tokenizer, 1024, 1024, tokenizer.vocab_size, "x", 0)
    for text, right in (("a" * 1000, True), ("a" * 1001, False)):
        body = ChatRequest.model_validate(CHAT | {"stop": [text]})
        with nullcontext() if right else pytest.raises(ApiError, match="stop text"):
            sampling_of(body, served, ServeSettings(name="m"), max_tokens=1)


def test_arguments_nested_without_end_are_refused() -> None:
    for arguments in ('{"a":' * MANY + "1" + "}" * MANY, "[" * MANY):
        call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
        message = ChatMessage.model_validate({"role": "assistant", "tool_calls": [call]})
        with pytest.raises((ApiError, HerdError), match="JSON"):
            messages_of([TALK, message], ServeSettings(name="m"))


def test_more_calls_in_one_message_than_tools_may_be_offered_are_refused() -> None:
    calls = [{"id": str(i), "function": {"name": "f", "arguments": "{}"}} for i in range(10_000)]
    message = ChatMessage.model_validate({"role": "assistant", "tool_calls": calls})
    with pytest.raises(ApiError, match="calls"):
        messages_of([TALK, message], ServeSettings(name="m"))
