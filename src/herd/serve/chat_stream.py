"""The answer to a chat request as it comes, in `chat.completion.chunk` events.

What an engine's step gave one answer goes out as one event. An event of plain text is put together out of a beginning
and an end that are the same for the whole answer: this is what runs for every token of every stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from herd.serve.backend import Answers, Ended, Said, Served
from herd.serve.chat import Chat, arguments_of, new_call_id
from herd.serve.choices import hear, usage_of
from herd.serve.logprobs import chat_logprobs
from herd.serve.reading import Text
from herd.serve.replies import dumps
from herd.serve.sse import DONE, event, grouped
from herd.text import ToolCall


class ChatStream:
    """The events of one request's answers."""

    def __init__(self, chat: Chat, served: Served, name: str) -> None:
        self._chat, self._served = chat, served
        self._head: dict[str, Any] = {
            "id": chat.id,
            "object": "chat.completion.chunk",
            "created": chat.created,
            "model": name,
            "system_fingerprint": served.fingerprint,
        } | ({"usage": None} if chat.usage else {})
        self._beginning = b"data: " + dumps(self._head)[:-1] + b',"choices":[{"index":'
        self._choices = chat.choices(served)

    async def events(self, answers: Answers) -> AsyncIterator[bytes]:
        """Bytes to send, each time at once."""
        yield self._opening()
        async for batch in answers:
            if data := b"".join(self._one(answers, some) for some in grouped(batch)):
                yield data
        if any(choice.finish is None for choice in self._choices):
            return  # nobody listens any more
        if self._chat.usage:
            usage = usage_of(self._chat.n_prompt, self._choices)
            yield event(dumps(self._head | {"choices": [], "usage": usage}))
        yield DONE

    def _opening(self) -> bytes:
        delta = {"role": "assistant", "content": ""}
        events = [self._chunk(index, delta) for index in range(len(self._choices))]
        if not self._chat.warnings:
            return b"".join(events)
        first = self._head | {"choices": [], "warnings": list(self._chat.warnings)}
        return event(dumps(first)) + b"".join(events)

    def _one(self, answers: Answers, batch: Sequence[Said | Ended]) -> bytes:
        """The events that a batch of one answer makes."""
        index = batch[0].which
        choice = self._choices[index]
        n_said, n_calls, was_open = len(choice.said), len(choice.calls), choice.finish is None
        text = "".join(new.text for one in batch for new in hear(answers, self._choices, one) if isinstance(new, Text))
        found = [self._content(index, text, choice.said[n_said:])]
        found += [self._call(index, n_calls + i, call) for i, call in enumerate(choice.calls[n_calls:])]
        if was_open and choice.finish is not None:
            found.append(self._chunk(index, {}, choice.finish))
        return b"".join(found)

    def _content(self, index: int, text: str, said: Sequence[Said]) -> bytes:
        if self._chat.n_top is not None and said:
            entries = chat_logprobs(self._served.tokenizer, said, self._chat.n_top)
            return self._chunk(index, {"content": text}, logprobs={"content": entries, "refusal": None})
        if not text:
            return b""
        quoted = encode_basestring_ascii(text).encode("ascii")
        return b'%b%d,"delta":{"content":%b},"finish_reason":null}]}\n\n' % (self._beginning, index, quoted)

    def _call(self, index: int, place: int, call: ToolCall) -> bytes:
        """Its id and name, then its arguments: clients add up what comes under one place."""
        begun = {
            "index": place,
            "id": new_call_id(),
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        rest = {"index": place, "function": {"arguments": arguments_of(call)}}
        return self._chunk(index, {"tool_calls": [begun]}) + self._chunk(index, {"tool_calls": [rest]})

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return event(dumps(self._head | {"choices": [choice]}))
