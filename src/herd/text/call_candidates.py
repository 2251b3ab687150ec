"""Text that may be a tool call without the python tag, fed one character at a time until that is decided.

A candidate is refused at the first character that no call could have, so little text is held; once it is sure to be
meant as a call it is followed to its closing bracket. See `herd.text.tool_parser`.
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from herd.text.call_forms import Reading, read_function, read_list, read_objects

_MOST_SPACE = 200  # a call with more white space than this before its first word is refused
_KEYS = ("type", "name", "parameters", "arguments")
_FUNCTION, _CLOSE = "<function=", "</function>"
_NAME_VALUE = re.compile(r'\s*:\s*"(.*)', re.DOTALL)


class Open(enum.Enum):
    MORE = "more"
    REFUSED = "refused"
    DONE = "done"


def begin(character: str, tools: Collection[str]) -> Candidate | None:
    """The candidate that begins with `character`, if one does."""
    kinds: dict[str, Callable[[Collection[str]], Candidate]] = {"{": Object, "[": List, "<": Function}
    return kinds[character](tools) if character in kinds else None


class Candidate(ABC):
    """`feed` it what follows its first character; when that says DONE, or the reply ends, `result` decides."""

    first = ""

    def __init__(self, tools: Collection[str]) -> None:
        self.tools = tools
        self.held = self.first

    @abstractmethod
    def feed(self, character: str) -> Open:
        """Take one more character; says whether more may come, this is no call, or it is whole."""

    @abstractmethod
    def result(self) -> tuple[str, Reading | None, str]:
        """The text used, what it says (None: nothing, it is prose), and the text behind it that was not used."""

    def _known(self, reading: Reading) -> Reading:
        if isinstance(reading, str):
            return reading
        strange = [call.name for call in reading if call.name not in self.tools]
        return f"there is no tool {strange[0]!r}" if strange else reading


class Object(Candidate):
    """`{"name": ...}`, the first key being one that calls have."""

    first = "{"

    def __init__(self, tools: Collection[str]) -> None:
        super().__init__(tools)
        self._brackets = Brackets('"')
        self._brackets.closes("{")
        self._sure: bool | None = None

    def feed(self, character: str) -> Open:
        self.held += character
        closed = self._brackets.closes(character)
        if self._sure is None:
            self._sure = begins_call(self.held, self.tools)
        if self._sure is False:
            return Open.REFUSED
        return Open.DONE if closed else Open.MORE

    def result(self) -> tuple[str, Reading | None, str]:
        if not self._sure:
            return self.held, None, ""
        reading = read_objects(self.held, "bare") if self._brackets.closed else "the reply ends inside the tool call"
        if isinstance(reading, str) and self.held[1:].lstrip().startswith(('"parameters"', '"arguments"')):
            return self.held, None, ""  # many things have parameters
        return self.held, self._known(reading), ""


class List(Candidate):
    """`[{"name": ...}, ...]` or `[name(key=value), ...]`."""

    first = "["

    def __init__(self, tools: Collection[str]) -> None:
        super().__init__(tools)
        self._brackets = Brackets("\"'")
        self._brackets.closes("[")
        self._sure: bool | None = None

    def feed(self, character: str) -> Open:
        self.held += character
        closed = self._brackets.closes(character)
        if self._sure is None:
            self._sure = self._begins()
        if self._sure is False:
            return Open.REFUSED
        return Open.DONE if closed else Open.MORE

    def _begins(self) -> bool | None:
        inside = self.held[1:].lstrip()
        if not inside:
            return None if len(self.held) < _MOST_SPACE else False
        if inside.startswith("{"):
            return begins_call(inside, self.tools)
        name, bracket, _ = inside.partition("(")
        if bracket:
            return name in self.tools
        return None if any(tool.startswith(name) for tool in self.tools) else False

    def result(self) -> tuple[str, Reading | None, str]:
        if not self._sure:
            return self.held, None, ""
        reading = read_list(self.held, "bare") if self._brackets.closed else "the reply ends inside the tool call"
        return self.held, self._known(reading), ""


class Function(Candidate):
    """`<function=name>{...}</function>`; the closing tag may be missing (Meta's matcher does not need it)."""

    first = "<"

    def __init__(self, tools: Collection[str]) -> None:
        super().__init__(tools)
        self._name = ""
        self._begin = self._end = 0  # where the arguments stand
        self._brackets = Brackets('"')
        self._no_object = False

    def feed(self, character: str) -> Open:
        self.held += character
        if not self._begin:
            return self._feed_name(character)
        if not self._end:
            return self._feed_arguments(character)
        tail = self.held[self._end :].lstrip()
        if _CLOSE.startswith(tail):
            return Open.DONE if tail == _CLOSE else Open.MORE
        return Open.DONE

    def _feed_name(self, character: str) -> Open:
        if len(self.held) <= len(_FUNCTION):
            return Open.MORE if _FUNCTION.startswith(self.held) else Open.REFUSED
        if character == ">":
            self._name, self._begin = self.held[len(_FUNCTION) : -1], len(self.held)
            return Open.MORE if self._name in self.tools else Open.REFUSED
        name = self.held[len(_FUNCTION) :]
        return Open.MORE if any(tool.startswith(name) for tool in self.tools) else Open.REFUSED

    def _feed_arguments(self, character: str) -> Open:
        started = self.held[self._begin :].lstrip()
        if started and not started.startswith("{"):
            self._no_object = True
            return Open.DONE
        if started and self._brackets.closes(character):
            self._end = len(self.held)
        return Open.MORE

    def result(self) -> tuple[str, Reading | None, str]:
        if not self._begin:
            return self.held, None, ""
        if self._no_object:
            head = self.held[: self._begin]
            return head, f"the arguments of {self._name!r} are not a JSON object", self.held[self._begin :]
        if not self._end:
            return self.held, "the reply ends inside the tool call", ""
        end = len(self.held) if self.held.endswith(_CLOSE) else self._end
        reading = read_function(self._name, self.held[self._begin : self._end])
        return self.held[:end], reading, self.held[end:]


class Brackets:
    """Whether brackets are closed again, those inside quoted strings not counted."""

    def __init__(self, quotes: str) -> None:
        self._quotes = quotes
        self._depth = 0
        self._quote = ""
        self._escaped = self.closed = False

    def closes(self, character: str) -> bool:
        """Take one more character; True if it closes the first bracket."""
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == self._quote:
                self._quote = ""
        elif character in self._quotes:
            self._quote = character
        else:
            self._depth += (character in "{[(") - (character in ")]}")
            self.closed = self._depth <= 0
        return self.closed


def begins_call(text: str, tools: Collection[str]) -> bool | None:
    """Whether `{...` can only be meant as a call (None: cannot be told yet), by its first key and what that says."""
    inside = text[1:].lstrip()
    if not inside:
        return None if len(text) < _MOST_SPACE else False
    key, closing, rest = inside[1:].partition('"')
    if inside[0] != '"' or not any(known == key if closing else known.startswith(key) for known in _KEYS):
        return False
    if not closing or not rest.strip():
        return None if len(rest) < _MOST_SPACE else False
    if not rest.lstrip().startswith(":"):
        return False
    if key in ("parameters", "arguments"):
        return True
    wanted = ("function",) if key == "type" else tools
    value = _NAME_VALUE.match(rest)
    if value is None:
        return None if not rest.strip(" \t\r\n:") and rest.count(":") == 1 and len(rest) < _MOST_SPACE else False
    name, closing, _ = value[1].partition('"')
    if closing:
        return name in wanted
    return None if any(one.startswith(name) for one in wanted) else False
