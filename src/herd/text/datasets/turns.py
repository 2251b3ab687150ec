"""Messages in the spellings of the wild, each to `Message`. FormatError says which turn and which key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from herd.errors import FormatError
from herd.text.dialogues import dialogue_from_dict, message_from_dict
from herd.text.message import Message
from herd.text.tools import with_tools

TURNS = ("messages", "conversations", "conversation")  # columns that hold the turns of a conversation
# What ShareGPT and its descendants call the speakers.
_SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter", "instruction"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "chatbot", "output"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "function", "observation", "function_response", "ipython"), "ipython"),
    "function_call": "assistant",
}
_MARK = re.compile(r"\n\n(Human|Assistant): ?")  # hh-rlhf as released
_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", "from", "value"}
# Keys of a turn that change what is learnt. Any other key (an id, a time) is left aside, and shown as not used.
_MEANT = {
    *("audio", "function_call", "image", "images", "loss", "mask", "reasoning", "reasoning_content", "refusal"),
    *("thinking", "train", "trainable", "weight"),
}
_LEARN = ("weight", "loss", "train", "trainable")  # marks of turns that are learnt or not


@dataclass(frozen=True)
class Pair:
    """Two replies to one conversation, the better one first."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message


def conversation(value: Any, *, system: Any = None, tools: Any = None) -> list[Message]:
    """A list of messages in either spelling: role and content, or from and value."""
    if not isinstance(value, list) or not value:
        raise FormatError("a conversation is a list of at least one message")
    if isinstance(value[0], Mapping) and "from" in value[0]:
        messages = [_shared(turn, f"turn {number}") for number, turn in enumerate(value, 1)]
    else:
        messages = dialogue_from_dict({"messages": [_known(turn, f"messages[{i}]") for i, turn in enumerate(value)]})
    return with_definitions(with_system(system, messages), tools)


def with_definitions(messages: Sequence[Message], tools: Any) -> list[Message]:
    """The messages with tools described at their head: a list of definitions, or its JSON text as some columns have."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise FormatError(f"'tools' is a text that is not JSON: {error}", where="tools") from error
    if tools and not isinstance(tools, list):
        raise FormatError("'tools' is not a list", where="tools")
    return with_tools(messages, tools) if tools else list(messages)


def other_keys(value: Any) -> set[str]:
    """The keys of a column of turns that nothing is made of."""
    turns = [turn for turn in value if isinstance(turn, Mapping)] if isinstance(value, list) else []
    known = _KEYS | set(_LEARN)
    return {str(key) for turn in turns for key, item in turn.items() if item is not None and key not in known}


def _known(turn: Any, where: str) -> Any:
    """A turn without what is not its text; FormatError for a key that means something which cannot be kept."""
    if not isinstance(turn, Mapping):
        return turn
    answers = turn.get("role") == "assistant" or _SPEAKERS.get(str(turn.get("from")).lower()) == "assistant"
    for key in turn.keys() & _MEANT:
        if turn[key] is None or (key in _LEARN and (turn[key] == 1 or not answers)):
            continue
        if key in _LEARN:
            what, mend = "an answer that is not to be learnt", "end the conversation before it, or remove the mark"
        else:
            what, mend = "part of a turn that is not read", "put it into the content, or remove it"
        raise FormatError(f"'{key}' is {turn[key]!r}: {what}", where=f"{where}.{key}", mend=mend)
    return {key: item for key, item in turn.items() if key in _KEYS and item is not None}


def _shared(turn: Any, where: str) -> Message:
    """One ShareGPT turn."""
    turn = _known(turn, where)
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise FormatError("a turn has 'from' and 'value', both texts", where=where)
    speaker = str(turn.get("from")).lower()
    if speaker not in _SPEAKERS:
        raise FormatError(f"unknown speaker {turn.get('from')!r}", where=where, mend=f"known: {', '.join(_SPEAKERS)}")
    if speaker != "function_call":
        return Message(_SPEAKERS[speaker], turn["value"])
    try:
        call = json.loads(turn["value"])
    except ValueError as error:
        raise FormatError(f"a function_call that is not JSON: {error}", where=where) from error
    return message_from_dict({"role": "assistant", "content": None, "tool_calls": [call]}, where=where)


def with_system(system: Any, messages: Sequence[Message]) -> list[Message]:
    """The messages behind a system message, where there is one and they do not begin with their own."""
    if not system or messages[0].role == "system":
        return list(messages)
    return [Message("system", text(system, "system")), *messages]


def text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"'{column}' is {type(value).__name__}, not a text", where=column)
    return value


def prompt_of(value: Any, column: str) -> list[Message]:
    """A prompt as a text (one user message) or as messages."""
    return conversation(value) if isinstance(value, list) else [Message("user", text(value, column))]


def reply_of(value: Any, column: str) -> Message:
    """A reply as a text, as one message in either spelling, or as a list of one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise FormatError(f"'{column}' holds {len(value)} messages; a reply is one", where=column)
        value = value[0]
    if isinstance(value, str):
        return Message("assistant", value)
    reply = conversation([value])[0]
    if reply.role != "assistant":
        raise FormatError(f"'{column}' is a message of the {reply.role}", where=column)
    return reply


def marked(value: Any, column: str) -> list[Message]:
    """A text of turns that begin with "\\n\\nHuman: " and "\\n\\nAssistant: "."""
    parts = _MARK.split(text(value, column))
    if len(parts) < 3 or parts[0].strip():
        raise FormatError("the text does not begin with '\\n\\nHuman: '", where=column)
    names = {"Human": "user", "Assistant": "assistant"}
    return [Message(names[name], said) for name, said in zip(parts[1::2], parts[2::2], strict=True)]


def pair_of(chosen: Sequence[Message], rejected: Sequence[Message]) -> Pair:
    """Two whole conversations that differ in their last message."""
    if tuple(chosen[:-1]) != tuple(rejected[:-1]) or len(chosen) < 2:
        raise FormatError("chosen and rejected do not share everything but their last message", where="chosen")
    for side, name in ((chosen, "chosen"), (rejected, "rejected")):
        if side[-1].role != "assistant":
            raise FormatError(f"'{name}' ends with the {side[-1].role}, not with the assistant", where=name)
    return Pair(tuple(chosen[:-1]), chosen[-1], rejected[-1])
