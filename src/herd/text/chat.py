"""Llama 3.1's chat format: messages to ids with their loss mask, and a model's reply back to a message.

    <|begin_of_text|>
    <|start_header_id|>ROLE<|end_header_id|>\\n\\n CONTENT <|eot_id|>     ... once for each message

A tool call is `<|python_tag|>{"type": "function", "name": ..., "parameters": {...}}` and ends in `<|eom_id|>`; built-in
tools are written `brave_search.call(query="...")` or as code behind the same tag. Calls of the forms "bare" and
"function" (see `ToolCall`) have no tag and end in `<|eot_id|>`. Where sources differ or are silent:

- Header, content and stop are encoded apart, so no byte pair crosses their borders.
- Content is stripped of white space on both sides, as in Meta's first reference and in Hugging Face's template.
- Every tagged call carries its tag, in training and in the history (the reference re-encodes searches without).
- One call per message, as released; prose may stand before it in the same message, an empty line before untagged ones.
- The system message is written as given; `herd.text.tools.prepare` writes environment, dates and tools into it.

A tokenizer that came with another chat template (`Tokenizer.foreign_format`) is written and masked by that one.

Not covered: images. Several calls in one reply are told apart by `herd.text.tool_parser`, not by `parse_reply`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from herd.errors import InputError
from herd.text.folder_format import FolderFormat
from herd.text.message import Message
from herd.text.specials import END_HEADER, PYTHON_TAG, START_HEADER
from herd.text.tokenizer import Tokenizer
from herd.text.tool_parser import Call, Event, Malformed, ToolParser

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


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], *, limit: int | None = None) -> list[int]:
    """Ids of the conversation so far with an open assistant header at the end: what a model continues.

    With `limit`, the model's context, a prompt that leaves no room for an answer is an InputError: nothing is cut.
    """
    foreign = _format_for(tokenizer, messages)
    ids = (
        foreign.prompt(messages)
        if foreign
        else encode_dialogue(tokenizer, messages).ids + list(_header(tokenizer, "assistant"))
    )
    if limit is not None and len(ids) >= limit:
        raise InputError(
            f"the prompt has {len(ids)} tokens, and the model's context is {limit}",
            mend="shorten the conversation or leave out its oldest messages; the answer needs room too",
        )
    return ids


def encode_dialogue(tokenizer: Tokenizer, messages: Sequence[Message]) -> Dialogue:
    """Ids of a whole conversation, every message closed.

    Trained: the content of every assistant message and the eot or eom that ends it. Nothing else.
    """
    if foreign := _format_for(tokenizer, messages):
        marked = foreign.dialogue(messages)
        return Dialogue([i for i, _, _ in marked], [learn for _, learn, _ in marked], [kind for *_, kind in marked])
    dialogue = Dialogue([tokenizer.bos], [False], ["bos"])
    for message in messages:
        learn = message.role == "assistant"
        _append(dialogue, _header(tokenizer, message.role), False, "header")
        _append(dialogue, encode_content(tokenizer, message), learn, "content")
        _append(dialogue, (stop_id(tokenizer, message),), learn, "stop")
    return dialogue


def _format_for(tokenizer: Tokenizer, messages: Sequence[Message]) -> FolderFormat | None:
    """The model's own format, if it is not this one. InputError for no messages at all."""
    if not messages:
        raise InputError("a conversation without messages", mend="give at least one message")
    return tokenizer.foreign_format


def encode_content(tokenizer: Tokenizer, message: Message) -> list[int]:
    """Ids between header and stop: the text, and the tool call if there is one."""
    text = message.content.strip()
    for call in message.tool_calls:
        if call.tagged:
            return [*tokenizer.encode(text), tokenizer.special(PYTHON_TAG), *tokenizer.encode(call.text())]
        return tokenizer.encode(f"{text}\n\n{call.text()}" if text else call.text())
    return tokenizer.encode(text)


def stop_id(tokenizer: Tokenizer, message: Message) -> int:
    """eom behind a call with the python tag, for the tool's answer is awaited; eot otherwise."""
    return tokenizer.eom if any(call.tagged for call in message.tool_calls) else tokenizer.eot


def _append(dialogue: Dialogue, ids: Sequence[int], trained: bool, kind: Kind) -> None:
    dialogue.ids.extend(ids)
    dialogue.trained.extend([trained] * len(ids))
    dialogue.kinds.extend([kind] * len(ids))


@lru_cache(maxsize=64)
def _header(tokenizer: Tokenizer, role: str) -> tuple[int, ...]:
    start, end = tokenizer.special(START_HEADER), tokenizer.special(END_HEADER)
    return (start, *tokenizer.encode(role), end, *tokenizer.encode("\n\n"))


def parse_reply(tokenizer: Tokenizer, ids: Sequence[int], *, tools: Collection[str] = ()) -> Message:
    """The assistant message that sampled `ids` write; reading ends at the first stop id.

    What follows a python tag is read as a call, built-in, JSON or code. `tools` names the functions whose calls are
    recognised without the tag too. A call that cannot be read stays in the content, and `problem` says why.
    """
    end = next((i for i, token in enumerate(ids) if token in tokenizer.stop_ids), len(ids))
    ids, tag = list(ids[:end]), tokenizer.python_tag
    at = ids.index(tag) if tag in ids else None
    prose, body = (ids, None) if at is None else (ids[:at], ids[at + 1 :])
    strange = [token for token in (*prose, *(body or ())) if tokenizer.is_special(token)]
    text = tokenizer.decode(prose, skip_special=True)
    call = None if body is None else tokenizer.decode(body, skip_special=True)
    if strange:
        inside = (text if call is None else f"{text} {call}").strip()
        return Message("assistant", inside, problem=f"{tokenizer.decode(strange[:1])} inside the reply")
    return parse_text(text, call, tools=tools)


def parse_text(text: str, call: str | None = None, *, tools: Collection[str] = ()) -> Message:
    """`parse_reply` for text: `text` stood before the python tag, `call` behind it (None: there was no tag)."""
    parser = ToolParser(tools)
    events = parser.push(text)
    if call is not None:
        events += [*parser.tag(), *parser.push(call)]
    events += parser.finish()
    calls = [event.call for event in events if isinstance(event, Call)]
    if len(calls) > 1:
        whole = text if call is None else f"{text.strip()} {call.strip()}"
        return Message("assistant", whole.strip(), problem=f"{len(calls)} tool calls in one reply")
    problem = next((event.reason for event in events if isinstance(event, Malformed)), "")
    return Message("assistant", _prose(events), tuple(calls), problem=problem)


def _prose(events: Sequence[Event]) -> str:
    """What is no call, a space standing for the tag before a malformed one."""
    text = ""
    for event in events:
        if isinstance(event, Malformed) and event.tagged:
            text = f"{text.strip()} {event.text.strip()}"
        elif not isinstance(event, Call):
            text += event.text
    return text.strip()
