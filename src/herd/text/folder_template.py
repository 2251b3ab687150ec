"""The chat template that stands beside a model, where it writes conversations otherwise than herd does.

    template = foreign_template(stated, where="Llama-3.1-8B-Instruct/chat_template.jinja")
    template.render(messages, opened=True)     what transformers' apply_chat_template gives
    template.differences                       in which cases, and where the two texts part

A model must be asked, and trained further, in the words it was trained with; so `Tokenizer.load` keeps the template,
and `encode_prompt` and `encode_dialogue` go by it. Templates are programs of strangers: they run in Jinja's sandbox,
for ten seconds at most. They are told no date (`strftime_now`), because training must give the same ids tomorrow: the
released templates then write their fixed one. Not covered: tools handed to the template (`tools=`); in herd they are
written into a message (`herd.text.tools`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from herd.errors import FormatError, HerdError, InputError
from herd.files import read_json
from herd.text.beginnings import Beginnings
from herd.text.jinja import Refusal, compiled
from herd.text.message import Message, ToolCall
from herd.text.template import CHAT_TEMPLATE

T = TypeVar("T")
_LIMIT_S = 10.0
_MEND = "take the file from where the model comes from, or remove it: herd then writes Llama 3.1's own format"
_ASKED, _ANSWER = Message("user", "How many?"), Message("assistant", "Seven.")
CASES: Mapping[str, Sequence[Message]] = {
    "a question": (_ASKED,),
    "a system message": (Message("system", "Be brief."), _ASKED),
    "an answered question": (_ASKED, _ANSWER, Message("user", "Why?")),
    "white space around a message": (Message("user", "  How many?\n"),),
    "a tool call and its result": (
        _ASKED,
        Message("assistant", "", (ToolCall("count", {"what": "llamas"}),)),
        Message("ipython", "7"),
    ),
}


@dataclass(frozen=True)
class Stated:
    """What the files beside a tokenizer say of chats; "" for nothing. `bos` and `eos` are spellings."""

    template: str = ""
    bos: str = ""
    eos: str = ""
    where: str = ""


def read_stated(folder: Path) -> Stated:
    """chat_template.jinja, or else what tokenizer_config.json states: the order of transformers.

    FormatError for a tokenizer_config.json that is no JSON object.
    """
    path, file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise FormatError("not a JSON object", where=str(path), mend="download the file again")
    bos, eos = (_spelled(config.get(key)) for key in ("bos_token", "eos_token"))
    if file.is_file():
        try:
            return Stated(file.read_text(encoding="utf-8"), bos, eos, str(file))
        except UnicodeDecodeError as error:
            raise FormatError("the chat template is not UTF-8", where=str(file), mend=_MEND) from error
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return Stated(template if isinstance(template, str) else "", bos, eos, str(path))


def _spelled(token: Any) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


@dataclass(frozen=True)
class Difference:
    """One case in which a template and herd's format part: what each writes from there on ("" where one ends)."""

    case: str
    theirs: str
    ours: str

    def __str__(self) -> str:
        return f"{self.case}: it writes {_start(self.theirs)} where herd's format has {_start(self.ours)}"


def parting(one: str, other: str) -> int:
    """The first place at which two texts differ, or one ends."""
    alike, apart = 0, min(len(one), len(other)) + 1
    while apart - alike > 1:  # texts may be long: pieces are compared, not characters
        middle = (alike + apart) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            apart = middle
    return alike


def _start(text: str) -> str:
    return repr(text if len(text) <= 90 else text[:87] + "...") if text else "nothing"


class FolderTemplate:
    """A chat template of strangers. FormatError on first use if it is no template that can be run."""

    def __init__(self, stated: Stated) -> None:
        self._stated = stated
        # Templates know a tool's result as "tool", "ipython" or both; the role may be written as it is named.
        self._result_role = "tool" if any(f"{q}tool{q}" in stated.template for q in "'\"") else "ipython"

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The cases in which it writes otherwise than herd's own template."""
        ours = FolderTemplate(Stated(CHAT_TEMPLATE, self._stated.bos, self._stated.eos))
        found = []
        for case, messages in CASES.items():
            expected = ours.render(messages, opened=True)
            try:
                written = self.render(messages, opened=True)
            except FormatError:
                raise
            except InputError as error:
                written = f"[{error.message}]"
            if written != expected:
                at = parting(written, expected)
                found.append(Difference(case, written[at:], expected[at:]))
        return tuple(found)

    def render(self, messages: Sequence[Message], *, opened: bool, hide: Callable[[str], str] = str) -> str:
        """The conversation as text, with an open assistant header at its end if `opened`. `hide` changes every string
        of the messages first. InputError where the template refuses, or leaves a message or a call out.
        """
        return self.beginnings(messages, hide=hide).render(len(messages), opened=opened)

    def beginnings(self, messages: Sequence[Message], *, hide: Callable[[str], str] = str) -> Beginnings:
        """Several renderings of one conversation, which have much in common."""
        return Beginnings([_as_dict(message, self._result_role, hide) for message in messages], self._written)

    def _written(self, raw: Sequence[Mapping[str, Any]], opened: bool) -> str:
        context = {"messages": list(raw), "add_generation_prompt": opened}
        names = {"bos_token": self._stated.bos, "eos_token": self._stated.eos}
        try:
            text = _in_time(lambda: str(self._program.render(**context, **names)))
        except Refusal as error:
            raise InputError(f"the model's chat template refuses the conversation: {error}") from error
        except HerdError:
            raise
        except Exception as error:  # a program of strangers may fail in any way
            raise FormatError(
                f"the chat template cannot be used: {error or type(error).__name__}",
                where=self._stated.where,
                mend=_MEND,
            ) from error
        return text

    @cached_property
    def _program(self) -> Any:
        return compiled(self._stated.template)


def differs(differences: Sequence[Difference], indent: str = "  ") -> str:
    """The differences for a person, one line each after `indent`, under a line that says what they mean."""
    head = "the model's own chat template is used; it differs from herd's format in"
    return f"\n{indent}".join([f"{head} {len(differences)} of {len(CASES)} cases", *map(str, differences)])


def foreign_template(stated: Stated) -> FolderTemplate | None:
    """The template if there is one and it differs from herd's; FormatError if it cannot be run."""
    if not stated.template or stated.template == CHAT_TEMPLATE:
        return None
    template = FolderTemplate(stated)
    return template if template.differences else None


def _as_dict(message: Message, result_role: str, hide: Callable[[str], str]) -> dict[str, Any]:
    role = result_role if message.role == "ipython" else message.role
    raw: dict[str, Any] = {"role": role, "content": hide(message.content)}
    if message.tool_calls:
        calls = [{"name": hide(c.name), "arguments": _hidden(dict(c.parameters), hide)} for c in message.tool_calls]
        raw["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return raw


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {hide(key): _hidden(item, hide) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item, hide) for item in value]
    return hide(value) if isinstance(value, str) else value


def _in_time(work: Callable[[], T]) -> T:
    """What `work` returns or raises; FormatError when it takes too long, its thread being left to itself."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_LIMIT_S)
    if not outcome:
        raise FormatError(f"the chat template runs for more than {_LIMIT_S:.0f} seconds", mend=_MEND)
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error it is what work returned
