"""Lines that begin with a slash: what each does to the conversation. `/help` is made of this table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from herd.commands import chat_settings
from herd.commands.chat_settings import SETTINGS
from herd.commands.chat_talk import Conversation
from herd.commands.chat_tools import Tools, builtin_tools, read_tools
from herd.errors import FormatError, HerdError, InputError
from herd.files import read_jsonl, write_jsonl
from herd.generate import Sampling
from herd.text import Message
from herd.text.dialogues import dialogue_from_dict, message_to_dict
from herd.text.tools import describe_tools


def hear(talk: Conversation, line: str) -> str:
    """Act on one line; returns "interrupted" when Ctrl-C cut the answer, else ""."""
    if not line:
        return ""
    if not line.startswith("/"):
        return talk.say(Message("user", line))
    name, _, rest = line.partition(" ")
    if name not in ORDERS:
        talk.screen.remark(f"{name} is no command; /help lists them")
        return ""
    try:
        return ORDERS[name].act(talk, rest.strip()) or ""
    except HerdError as error:
        talk.screen.remark(str(error))
        return ""


def _help(talk: Conversation, rest: str) -> None:
    for order in ORDERS.values():
        talk.screen.line(f"{order.usage:<20} {order.about}")


def _reset(talk: Conversation, rest: str) -> None:
    talk.history.clear()
    talk.screen.remark("the conversation is forgotten")


def _system(talk: Conversation, rest: str) -> None:
    talk.system = rest or None
    talk.screen.remark("the system message is replaced" if rest else "no system message")


def _retry(talk: Conversation, rest: str) -> str:
    return talk.retry()


def _set(talk: Conversation, rest: str) -> None:
    """One setting of sampling changed or told, or all of them told."""
    name, _, value = rest.partition(" ")
    if not name:
        for each in SETTINGS:
            talk.screen.line(f"{each:<20} {chat_settings.told(talk.sampling, each)}")
        return
    if value.strip() == chat_settings.DEFAULT:
        talk.sampling = chat_settings.reset(talk.sampling, talk.begun, name)
    elif value.strip():
        talk.sampling = chat_settings.changed(talk.sampling, name, value)
    talk.screen.remark(f"{name} is {chat_settings.told(talk.sampling, name)}")


def _tools(talk: Conversation, rest: str) -> None:
    if rest == "off":
        talk.tools = Tools()
    elif rest == "on":
        talk.tools = builtin_tools()
    elif rest:
        added = read_tools(Path(rest).expanduser())
        others = [each for each in talk.tools.definitions if not {*Tools((each,)).names} & {*added.names}]
        talk.tools = Tools((*others, *added.definitions))
    names = talk.tools.names
    talk.screen.remark(f"the model may call {', '.join(names)}" if names else "no tools")


def _tool(talk: Conversation, rest: str) -> str:
    if not (talk.history and talk.history[-1].tool_calls):
        raise InputError("no call waits for an answer")
    return talk.say(Message("ipython", rest))


def _save(talk: Conversation, rest: str) -> None:
    """One line of JSON, as `herd train` reads it; tools, and settings that were changed, stand beside the messages."""
    path = _path(rest, "/save FILE.jsonl")
    if not talk.history:
        raise InputError("nothing was said yet")
    if path.exists() and path != talk.saved:
        raise InputError(f"{path} is there already", mend="name another file")
    record: dict[str, Any] = {"messages": [message_to_dict(message) for message in talk.messages()]}
    if talk.tools.definitions:
        record["tools"] = [dict(each) for each in talk.tools.definitions]
    if set_here := [name for name in SETTINGS if _value(talk, name) != chat_settings.value_of(talk.begun, name)]:
        record["sampling"] = {name: _value(talk, name) for name in set_here}
    write_jsonl(path, [record])
    talk.saved = path
    talk.screen.remark(f"{len(talk.history)} messages are saved in {path}")


def _load(talk: Conversation, rest: str) -> None:
    """The last dialogue of a file, or the one whose number stands behind it."""
    name, _, number = rest.rpartition(" ")
    if not (name and number.isdigit()):
        name, number = rest, ""
    path = _path(name, "/load FILE.jsonl")
    records = list(read_jsonl(path))
    at = int(number) if number else len(records)
    if not 1 <= at <= len(records):
        raise InputError(f"{path} holds {len(records)} dialogues", mend="give a number from 1 on")
    record = dict(records[at - 1]) if isinstance(records[at - 1], dict) else records[at - 1]
    tools = record.pop("tools", None) or [] if isinstance(record, dict) else []
    sampling, was_set = _with(talk, record.get("sampling") or {} if isinstance(record, dict) else {}, str(path))
    messages = dialogue_from_dict(record)
    describe_tools(tools)
    first = messages[0]
    talk.system = first.content if first.role == "system" else None
    talk.history = messages[1:] if first.role == "system" else messages
    talk.tools, talk.sampling = Tools(tuple(tools)), sampling
    talk.screen.remark(f"{len(talk.history)} messages of {path}, dialogue {at} of {len(records)}")
    for name in was_set:
        talk.screen.remark(f"{name} is {chat_settings.told(sampling, name)}")


def _with(talk: Conversation, found: Any, path: str) -> tuple[Sampling, list[str]]:
    """Sampling as a saved conversation had it, and which settings that changed."""
    if not isinstance(found, Mapping):
        raise FormatError("'sampling' is not an object", where=path)
    sampling = talk.sampling
    for name, value in found.items():
        sampling = chat_settings.changed(sampling, name, json.dumps(value))
    return sampling, list(found)


def _value(talk: Conversation, name: str) -> Any:
    return chat_settings.value_of(talk.sampling, name)


def _path(text: str, usage: str) -> Path:
    if not text:
        raise InputError("no file is named", mend=usage)
    return Path(text).expanduser()


class Order(NamedTuple):
    usage: str
    about: str
    act: Callable[[Conversation, str], str | None]


_ALL = (
    Order("/reset", "forget the conversation (the system message and what was set stay)", _reset),
    Order("/system TEXT", "replace the system message; without TEXT there is none", _system),
    Order("/retry", "have the last line answered anew", _retry),
    Order(
        "/set NAME VALUE", "temperature, max_tokens, stop, ...; VALUE may be 'default'; without NAME all are told", _set
    ),
    Order(
        "/tools on|off|FILE", "let the model call a calculator and a clock, none, or those that FILE describes", _tools
    ),
    Order("/tool TEXT", "answer a tool call of the model with TEXT", _tool),
    Order("/save FILE", "write the conversation as a line of JSON, as herd train reads it, and what was set", _save),
    Order("/load FILE [N]", "go on with the last conversation of a file, or its N-th, as it was set", _load),
    Order("/help", "this list", _help),
    Order(
        "/quit", "leave; so do Ctrl-D and a second Ctrl-C (the first stops the answer, or takes back the line)", _help
    ),
)
ORDERS = {order.usage.split()[0]: order for order in _ALL}
