"""Messages of the wire as `Message`s, tool results under the calls that they answer.

Llama 3.1 writes one call a message, and its result follows. So parallel calls and their results, which stand in one
message and several behind it, are written as pairs, in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from herd.errors import HerdError
from herd.serve.replies import refusal
from herd.serve.settings import ServeSettings
from herd.serve.wire.chat import ChatMessage, Part
from herd.text import Message, ToolCall, message_from_dict

_ROLES = {"developer": "system"}  # OpenAI's newer name


def messages_of(wire: Sequence[ChatMessage], settings: ServeSettings) -> list[Message]:
    """The conversation. ApiError with the message's place for what cannot be written in the model's format."""
    if len(wire) > settings.max_messages:
        raise refusal(f"{len(wire)} messages, and {settings.max_messages} are allowed", param="messages")
    found: list[Message] = []
    at = 0
    while at < len(wire):
        message, where = wire[at], f"messages[{at}]"
        if message.role == "tool":
            raise refusal("a tool's result answers no call before it", param=where)
        at += 1
        if not message.tool_calls:
            found.append(_plain(message, where))
            continue
        results = _results(wire, at)
        if len(message.tool_calls) > settings.max_tools:
            said = f"{len(message.tool_calls)} calls in one message, and {settings.max_tools} are allowed"
            raise refusal(said, param=f"{where}.tool_calls")
        found += _exchange(message, results, where, is_last=at + len(results) == len(wire))
        at += len(results)
    return found


def _results(wire: Sequence[ChatMessage], start: int) -> list[ChatMessage]:
    end = start
    while end < len(wire) and wire[end].role == "tool":
        end += 1
    return list(wire[start:end])


def _plain(message: ChatMessage, where: str) -> Message:
    role = _ROLES.get(message.role, message.role)
    return Message(role, content_of(message.content, where, may_lack=role == "assistant"))


def _exchange(message: ChatMessage, results: Sequence[ChatMessage], where: str, *, is_last: bool) -> list[Message]:
    """A message of calls and their results as pairs."""
    calls = _calls(message, where)
    said = content_of(message.content, where, may_lack=True)
    answers = _by_call(message, results, where)
    found: list[Message] = []
    for number, call in enumerate(calls):
        found.append(Message("assistant", said if number == 0 else "", (call,)))
        if number in answers:
            found.append(Message("ipython", content_of(answers[number].content, where, may_lack=False)))
        elif not is_last or answers or len(calls) > 1:
            raise refusal(f"call {number + 1} of {len(calls)} has no result", param=f"{where}.tool_calls[{number}]")
    return found


def _calls(message: ChatMessage, where: str) -> list[ToolCall]:
    if message.role != "assistant":
        raise refusal("only the assistant calls tools", param=f"{where}.tool_calls")
    found: list[ToolCall] = []
    for number, call in enumerate(message.tool_calls or ()):
        raw = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
        try:
            read = message_from_dict({"role": "assistant", "content": None, "tool_calls": [raw]})
        except HerdError as error:
            raise refusal(error.message, param=f"{where}.tool_calls[{number}]") from error
        found += read.tool_calls
    return found


def _by_call(message: ChatMessage, results: Sequence[ChatMessage], where: str) -> dict[int, ChatMessage]:
    """Which result answers which call: by id, or by order where no ids are given."""
    ids = [call.id for call in message.tool_calls or ()]
    if all(result.tool_call_id is None for result in results) and len(results) <= len(ids):
        return dict(enumerate(results))
    found: dict[int, ChatMessage] = {}
    for result in results:
        wanted = result.tool_call_id
        if wanted is None or wanted not in ids:
            raise refusal(f"a tool's result answers the call {str(wanted)[:64]!r}, which is not there", param=where)
        if ids.index(wanted) in found:
            raise refusal(f"two results for the call {wanted[:64]!r}", param=where)
        found[ids.index(wanted)] = result
    return found


def content_of(content: str | Sequence[Part] | None, where: str, *, may_lack: bool) -> str:
    """Text as it is, or in parts."""
    if content is None:
        if may_lack:
            return ""
        raise refusal("the message has no content", param=f"{where}.content")
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if part.type not in ("text", "input_text", "output_text") or part.text is None:
            raise refusal(
                f"a part of type {part.type[:40]!r}: the model reads text only",
                param=f"{where}.content[{number}]",
                code="unsupported_content",
            )
    return "".join(part.text or "" for part in content)
