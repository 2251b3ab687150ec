"""Text that may be a tool call without the python tag, fed one character at a time until that is decided.

A candidate is refused at the first character that no call could have, so little text is held; once it is sure to be
meant as a call it is followed to its closing bracket. See `herd.text.tool_parser`.
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from herd.text.brackets import Brackets
from herd.text.call_forms import CLOSE, FUNCTION, Reading, read_function, read_list, read_objects

_MOST_SPACE = 200  # a call with more white space than this before its first word is refused
_KEYS = ("type", "name", "parameters", "arguments")
_CUT_OFF = "the reply ends inside the tool call"
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
        self._held = [self.first]  # joined where it is short or whole: a reply must not cost its length squared

    @property
    def held(self) -> str:
        """All that was taken so far."""
        return "".join(self._held)

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
        self._held.append(character)
        closed = self._brackets.closes(character)
        if self._sure is None:
            self._sure = begins_call(self.held, self.tools)
        if self._sure is False:
            return Open.REFUSED
        return Open.DONE if closed else Open.MORE

    def result(self) -> tuple[str, Reading | None, str]:
        held = self.held
        if not self._sure:
            return held, None, ""
        reading = read_objects(held, "bare") if self._brackets.closed else _CUT_OFF
        if isinstance(reading, str) and held[1:].lstrip().startswith(('"parameters"', '"arguments"')):
            return held, None, ""  # many things have parameters
        return held, self._known(reading), ""


class List(Candidate):
    """`[{"name": ...}, ...]` or `[name(key=value), ...]`, alone on its line or before other calls.

    What stands behind it is part of the question: `[now()](page.md)` is a link, `[now()] tells the time` a sentence.
    """

    first = "["

    def __init__(self, tools: Collection[str]) -> None:
        super().__init__(tools)
        self._brackets = Brackets("\"'")
        self._brackets.closes("[")
        self._sure: bool | None = None
        self._end = 0  # of the list, once it is closed
        self._alone = True

    def feed(self, character: str) -> Open:
        self._held.append(character)
        if self._end:
            return self._feed_tail(character)
        closed = self._brackets.closes(character)
        if self._sure is None:
            self._sure = self._begins()
        if self._sure is False:
            return Open.REFUSED
        self._end = len(self._held) if closed else 0
        return Open.MORE

    def _feed_tail(self, character: str) -> Open:
        if character in " \t" and len(self._held) - self._end < _MOST_SPACE:
            return Open.MORE
        self._alone = character in " \t\r\n;,[{<"
        return Open.DONE

    def _begins(self) -> bool | None:
        inside = self.held[1:].lstrip()
        if not inside:
            return None if len(self._held) < _MOST_SPACE else False
        if inside.startswith("{"):
            return begins_call(inside, self.tools)
        name, bracket, _ = inside.partition("(")
        if bracket:
            return name in self.tools
        return None if any(tool.startswith(name) for tool in self.tools) else False

    def result(self) -> tuple[str, Reading | None, str]:
        held = self.held
        if not self._sure:
            return held, None, ""
        if not self._end:
            return held, _CUT_OFF, ""
        used, rest = held[: self._end], held[self._end :]
        reading = self._known(read_list(used, "bare"))
        return used, reading if self._alone else "other text follows the list of calls on its line", rest


class Function(Candidate):
    """`<function=name>{...}</function>`; the closing tag may be missing (Meta's matcher does not need it)."""

    first = "<"

    def __init__(self, tools: Collection[str]) -> None:
        super().__init__(tools)
        self._name = ""
        self._begin = self._open = self._end = 0  # where the arguments may stand, their first bracket, behind the last
        self._brackets = Brackets('"')
        self._no_object = False

    def feed(self, character: str) -> Open:
        self._held.append(character)
        if not self._begin:
            return self._feed_name(character)
        if not self._end:
            return self._feed_arguments(character)
        tail = "".join(self._held[self._end :]).lstrip()
        if not CLOSE.startswith(tail) or len(self._held) - self._end > _MOST_SPACE:
            return Open.DONE
        return Open.DONE if tail == CLOSE else Open.MORE

    def _feed_name(self, character: str) -> Open:
        held = self.held
        if len(held) <= len(FUNCTION):
            return Open.MORE if FUNCTION.startswith(held) else Open.REFUSED
        name = held[len(FUNCTION) :]
        if character == ">":
            self._name, self._begin = name[:-1], len(held)
            return Open.MORE if self._name in self.tools else Open.REFUSED
        return Open.MORE if any(tool.startswith(name) for tool in self.tools) else Open.REFUSED

    def _feed_arguments(self, character: str) -> Open:
        at = len(self._held) - 1
        if not self._open:
            if character.isspace() and at - self._begin < _MOST_SPACE:
                return Open.MORE
            if character != "{":
                self._no_object = True
                return Open.DONE
            self._open = at
        if self._brackets.closes(character):
            self._end = at + 1
        return Open.MORE

    def result(self) -> tuple[str, Reading | None, str]:
        held = self.held
        if not self._begin:
            return held, None, ""
        if self._no_object:
            return held[: self._begin], f"the arguments of {self._name!r} are not a JSON object", held[self._begin :]
        if not self._end:
            return held, _CUT_OFF, ""
        end = len(held) if held[self._end :].lstrip() == CLOSE else self._end
        return held[:end], read_function(self._name, held[self._open : self._end]), held[end:]


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
