"""Llama 3.1's chat format: messages to ids with their loss mask, and a model's reply back to a message.

    <|begin_of_text|>
    <|start_header_id|>ROLE<|end_header_id|>\\n\\n CONTENT <|eot_id|>     ... once for each message

A tool call is `<|python_tag|>{"type": "function", "name": ..., "parameters": {...}}` and ends in `<|eom_id|>`: the
zero-shot JSON form with the code environment on (Meta's prompt format page). Where sources differ or are silent:

- Header, content and stop are encoded apart, so no byte pair crosses their borders.
- Content is stripped of white space on both sides, as in Meta's first reference and in Hugging Face's template.
- Every call carries the python tag, in training and in the history (the reference re-encodes some calls without).
  Writing `Environment: ipython` into the system message is the caller's business, and so is describing the tools.
- One call per message, as released; prose may stand before it in the same message.
- The system message is written as given: no date lines are added.

Not covered: built-in tool syntax (`brave_search.call(...)`), `<function=...>` tags, images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from herd.errors import InputError
from herd.text.message import Message, ToolCall
from herd.text.specials import END_HEADER, PYTHON_TAG, START_HEADER
from herd.text.tokenizer import Tokenizer

Kind = Literal["bos", "header", "content", "stop"]


@dataclass(frozen=True)
class Dialogue:
    """A conversation as T ids. `trained[t]` says whether the model learns to produce `ids[t]`.

    `kinds[t]` is what the id is part of; preference training leaves out "header" and "stop" (paper, 4.1.4).
    """

    ids: list[int]
    trained: list[bool]
    kinds: list[Kind]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.trained) == len(self.kinds)

    @property
    def n_trained(self) -> int:
        return sum(self.trained)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids of the conversation so far with an open assistant header at the end: what a model continues."""
    return encode_dialogue(tokenizer, messages).ids + list(_header(tokenizer, "assistant"))


def encode_dialogue(tokenizer: Tokenizer, messages: Sequence[Message]) -> Dialogue:
    """Ids of a whole conversation, every message closed.

    Trained: the content of every assistant message and the eot or eom that ends it. Nothing else.
    """
    if not messages:
        raise InputError("a conversation without messages", mend="give at least one message")
    dialogue = Dialogue([tokenizer.bos], [False], ["bos"])
    for message in messages:
        learn = message.role == "assistant"
        _append(dialogue, _header(tokenizer, message.role), False, "header")
        _append(dialogue, encode_content(tokenizer, message), learn, "content")
        _append(dialogue, (stop_id(tokenizer, message),), learn, "stop")
    return dialogue


def encode_content(tokenizer: Tokenizer, message: Message) -> list[int]:
    """Ids between header and stop: the text, and the tool call if there is one."""
    ids = tokenizer.encode(message.content.strip())
    for call in message.tool_calls:
        ids += [tokenizer.special(PYTHON_TAG), *tokenizer.encode(call.json())]
    return ids


def stop_id(tokenizer: Tokenizer, message: Message) -> int:
    """eom when a tool must answer before the turn goes on, eot otherwise."""
    return tokenizer.eom if message.tool_calls else tokenizer.eot


def _append(dialogue: Dialogue, ids: Sequence[int], trained: bool, kind: Kind) -> None:
    dialogue.ids.extend(ids)
    dialogue.trained.extend([trained] * len(ids))
    dialogue.kinds.extend([kind] * len(ids))


@lru_cache(maxsize=64)
def _header(tokenizer: Tokenizer, role: str) -> tuple[int, ...]:
    start, end = tokenizer.special(START_HEADER), tokenizer.special(END_HEADER)
    return (start, *tokenizer.encode(role), end, *tokenizer.encode("\n\n"))


def parse_reply(tokenizer: Tokenizer, ids: Sequence[int], *, bare_calls: bool = False) -> Message:
    """The assistant message that sampled `ids` write; reading ends at the first stop id.

    What follows a python tag is read as a JSON call. A call that cannot be read stays in the content, and `problem`
    says why. With `bare_calls` a reply that is one JSON call without the tag counts too (environment off).
    """
    end = next((i for i, token in enumerate(ids) if token in tokenizer.stop_ids), len(ids))
    ids, tag = list(ids[:end]), tokenizer.special(PYTHON_TAG)
    if tag in ids:
        at = ids.index(tag)
        prose, body = ids[:at], ids[at + 1 :]
    else:
        prose, body = ids, None
    strange = [token for token in (*prose, *(body or ())) if tokenizer.is_special(token)]
    text = tokenizer.decode(prose, skip_special=True)
    call = None if body is None else tokenizer.decode(body, skip_special=True)
    if strange:
        inside = (text if call is None else f"{text} {call}").strip()
        return Message("assistant", inside, problem=f"{tokenizer.decode(strange[:1])} inside the reply")
    return parse_text(text, call, bare_calls=bare_calls)


def parse_text(text: str, call: str | None = None, *, bare_calls: bool = False) -> Message:
    """`parse_reply` for text: `text` stood before the python tag, `call` behind it (None: there was no tag)."""
    text = text.strip()
    if call is None and bare_calls and text.startswith("{"):
        parsed = _parse_call(text)
        return Message("assistant", "", (parsed,)) if isinstance(parsed, ToolCall) else Message("assistant", text)
    if call is None:
        return Message("assistant", text)
    parsed = _parse_call(call)
    if isinstance(parsed, ToolCall):
        return Message("assistant", text, (parsed,))
    return Message("assistant", f"{text} {call.strip()}".strip(), problem=parsed)


def _parse_call(text: str) -> ToolCall | str:
    """The call that `text` writes, or the reason why it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the tool call is not JSON: {error}"
    if not isinstance(value, dict):
        return "the tool call is not a JSON object"
    name, parameters = value.get("name"), value.get("parameters")
    if not isinstance(name, str) or not name:
        return "the tool call has no 'name'"
    if not isinstance(parameters, dict):
        return "the tool call has no 'parameters' object"
    if value.get("type", "function") != "function":
        return f"the tool call is of type {value['type']!r}, not 'function'"
    return ToolCall(name, parameters)
