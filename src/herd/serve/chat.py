"""`/v1/chat/completions`: what a request asks for, and its whole answer (`chat_stream` has it in pieces)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from herd.generate.protocol import Request
from herd.serve.backend import Served
from herd.serve.choices import Choice, usage_of
from herd.serve.logprobs import chat_logprobs
from herd.serve.messages import messages_of
from herd.serve.reading import Reader
from herd.serve.replies import refusal
from herd.serve.sampling import check_n, check_told, room_for, sampling_of, warnings_of, warnings_of_messages
from herd.serve.settings import ServeSettings
from herd.serve.structure import grammar_of
from herd.serve.toolbox import Toolbox
from herd.serve.wire.chat import ChatRequest
from herd.text import ToolCall, encode_prompt


@dataclass(frozen=True)
class Chat:
    """One request, checked: what the engine is asked, and how its answers are read."""

    requests: tuple[Request, ...]
    toolbox: Toolbox
    n_top: int | None  # alternatives a token; None: no log-probabilities
    warnings: tuple[str, ...] = ()
    usage: bool = False  # at the end of a stream
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def n_prompt(self) -> int:
        return len(self.requests[0].prompt)

    def choices(self, served: Served) -> list[Choice]:
        """One for each request."""
        how, names = self.requests[0].sampling, self.toolbox.names
        stops = frozenset(how.stop_ids)
        return [
            Choice(Reader(served.tokenizer, stops=how.stop, tools=names), stops, self.toolbox.single)
            for _ in self.requests
        ]


def read_chat(body: ChatRequest, served: Served, settings: ServeSettings) -> Chat:
    """ApiError or HerdError for what cannot be done. It encodes text and compiles grammars: not for the event loop."""
    warnings = warnings_of(body) + warnings_of_messages(body.messages)
    if not served.tokenizer.can_chat:
        raise refusal("this model has no chat format; use /v1/completions", code="no_chat_format")
    messages = messages_of(body.messages, settings)
    functions = [tool.function for tool in body.tools or ()]
    toolbox = Toolbox.of(functions, body.tool_choice, body.parallel_tool_calls, settings)
    warnings += toolbox.warnings(functions)
    prompt = encode_prompt(served.tokenizer, toolbox.prepare(messages))
    wanted = body.max_completion_tokens or body.max_tokens
    max_tokens = room_for(len(prompt), wanted, served, settings, "messages", warnings)
    if body.top_logprobs and not body.logprobs:
        raise refusal("top_logprobs is given without logprobs", param="top_logprobs")
    n_top = (body.top_logprobs or 0) if body.logprobs else None
    n = check_n(body.n, settings)
    check_told(n * max_tokens, n_top, settings)
    sampling = sampling_of(
        body, served, settings, max_tokens=max_tokens, top_logprobs=n_top or 0, bias=toolbox.banned(served)
    )
    grammar = toolbox.grammar(served)
    held = grammar_of(body, body.response_format, served)
    if held is not None and toolbox.offered:
        warnings.append("the answer is held to a form, so no tool is called")
    request = Request(tuple(prompt), sampling, grammar or held)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    return Chat(tuple(request.candidates(n)), toolbox, n_top, tuple(warnings), usage)


def chat_completion(chat: Chat, choices: Sequence[Choice], served: Served, name: str) -> dict[str, Any]:
    """The whole answer."""
    return {
        "id": chat.id,
        "object": "chat.completion",
        "created": chat.created,
        "model": name,
        "choices": [_choice(chat, index, choice, served) for index, choice in enumerate(choices)],
        "usage": usage_of(chat.n_prompt, choices),
        "system_fingerprint": served.fingerprint,
    }


def _choice(chat: Chat, index: int, choice: Choice, served: Served) -> dict[str, Any]:
    text = "".join(choice.text)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if choice.calls:
        message["content"] = text.strip() or None
        message["tool_calls"] = [call_object(call) for call in choice.calls]
    logprobs = None
    if chat.n_top is not None:
        logprobs = {"content": chat_logprobs(served.tokenizer, choice.said, chat.n_top), "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}


def call_object(call: ToolCall) -> dict[str, Any]:
    """A call as OpenAI's clients expect it."""
    return {"id": new_call_id(), "type": "function", "function": {"name": call.name, "arguments": arguments_of(call)}}


def arguments_of(call: ToolCall) -> str:
    return json.dumps(dict(call.parameters), ensure_ascii=False)


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
