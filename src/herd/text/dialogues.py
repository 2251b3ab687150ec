"""Conversations on disk: JSON lines of `{"messages": [...]}` in the form that OpenAI's API made common.

A tool call is nested there as `{"type": "function", "function": {"name": ..., "arguments": ...}}`, arguments being an
object or its JSON text; the flat `{"name": ..., "arguments": ...}` is read too. A key "form" beside "function" says how
the call is written, if not as JSON behind the python tag (see `ToolCall`). A list of `tools` beside the messages
is written into the system message. A record may hold further keys; a message may not, because a key that is not
understood (a weight, a thought) would be lost without a word.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from herd.errors import FormatError, HerdError
from herd.files import read_jsonl, write_jsonl
from herd.text.message import ALIASES, FORMS, ROLES, Message, ToolCall
from herd.text.tools import with_tools

# Identifiers pair parallel calls with results; with one call per message the order says the same.
_KNOWN_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name"}


def read_dialogues(path: str | Path) -> Iterator[list[Message]]:
    """The conversations of a JSONL(.gz) file. A malformed one is a FormatError with file, line and key."""
    path = Path(path)
    for row, record in enumerate(read_jsonl(path)):
        try:
            yield dialogue_from_dict(record)
        except FormatError as error:
            place = f"{path}, line {_line_of_row(path, row)}"
            where = f"{place}, {error.where}" if error.where else place
            raise FormatError(error.message, where=where, mend=error.mend) from error


def write_dialogues(path: str | Path, dialogues: Iterable[Sequence[Message]]) -> int:
    """Write conversations as JSON lines; returns how many."""
    return write_jsonl(Path(path), ({"messages": [message_to_dict(m) for m in d]} for d in dialogues))


def dialogue_from_dict(record: Any) -> list[Message]:
    """The messages of one record, its tools described in the system message; FormatError whose `where` is the key."""
    if not isinstance(record, dict) or "messages" not in record:
        raise FormatError("a dialogue is an object with the key 'messages'")
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        raise FormatError("'messages' is not a list of at least one message", where="messages")
    parsed = [message_from_dict(raw, where=f"messages[{i}]") for i, raw in enumerate(messages)]
    tools = record.get("tools") or []
    if not isinstance(tools, list):
        raise FormatError("'tools' is not a list", where="tools")
    return with_tools(parsed, tools) if tools else parsed


def message_from_dict(raw: Any, where: str = "") -> Message:
    """One message from its OpenAI-style object; FormatError whose `where` is `where` and the key."""
    if not isinstance(raw, dict):
        raise FormatError(f"a message is an object, not {type(raw).__name__}", where=where)
    # APIs write "refusal": null and the like; a key without a value says nothing that could be lost.
    if unknown := [key for key in raw if key not in _KNOWN_KEYS and raw[key] is not None]:
        raise FormatError(
            f"a message has no key {unknown[0]!r}",
            where=_join(where, str(unknown[0])),
            mend=f"known are {', '.join(sorted(_KNOWN_KEYS))}; remove the others",
        )
    role = raw.get("role")
    if not isinstance(role, str) or ALIASES.get(role, role) not in ROLES:
        raise FormatError(f"unknown role {role!r}", where=_join(where, "role"), mend=f"use one of {', '.join(ROLES)}")
    calls = _calls(raw.get("tool_calls"), _join(where, "tool_calls"))
    result = ALIASES.get(role, role) == "ipython"
    content = _content(raw.get("content"), bool(calls), result, _join(where, "content"))
    try:
        return Message(role, content, calls)
    except HerdError as error:
        raise FormatError(error.message, where=_join(where, "tool_calls"), mend=error.mend) from error


def message_to_dict(message: Message) -> dict[str, Any]:
    """The OpenAI-style object of a message, arguments as an object (what chat templates expect)."""
    raw: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        raw["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.parameters)}}
            | ({} if call.form == "json" else {"form": call.form})
            for call in message.tool_calls
        ]
    return raw


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _content(value: Any, has_calls: bool, result: bool, where: str) -> str:
    """Text as a string, as a list of text parts, or null beside a tool call. A tool's result may be any JSON."""
    if value is None and has_calls:
        return ""
    parts = isinstance(value, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in value)
    if parts and (value or not result):
        return "".join(str(part.get("text", "")) for part in value)
    if result and isinstance(value, dict | list | int | float):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise FormatError("'content' is not text", where=where, mend="give a string; images are not supported")
    return value


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise FormatError("'tool_calls' is not a list", where=where)
    return tuple(_call(raw, f"{where}[{i}]") for i, raw in enumerate(value))


def _call(raw: Any, where: str) -> ToolCall:
    function = raw.get("function", raw) if isinstance(raw, dict) else None
    if not isinstance(function, dict):
        raise FormatError("a tool call is an object with the key 'function'", where=where)
    place = where if function is raw else f"{where}.function"
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise FormatError("a tool call needs a name", where=f"{place}.name")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"arguments are not JSON: {error}", where=f"{place}.arguments") from error
    if not isinstance(arguments, dict):
        raise FormatError("arguments are not an object", where=f"{place}.arguments")
    form = raw.get("form") or "json"
    if form not in FORMS:
        raise FormatError(
            f"unknown form of a tool call: {form!r}", where=f"{where}.form", mend=f"use one of {', '.join(FORMS)}"
        )
    return ToolCall(name, arguments, form)


def _line_of_row(path: Path, row: int) -> int:
    """The line, from 1, of the file's `row`-th record: blank lines are no records."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as handle:
        return [number for number, line in enumerate(handle, 1) if line.strip()][row]
