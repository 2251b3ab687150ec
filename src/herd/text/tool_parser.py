"""Tool calls out of a reply while it is being written: text, calls and malformed calls, in their order.

    parser = ToolParser(tools=["weather"])
    parser.push('Let me see. {"name": "weather", "parame')   == [Text("Let me see. ")]
    parser.push('ters": {"town": "Bern"}}')                  == [Call(ToolCall("weather", {"town": "Bern"}))]
    parser.finish()                                          == []

How the reply is cut into pushes changes nothing but where `Text` events are cut. A call is an event only when it is
whole and can be read, so nothing is ever taken back; text that could still become one is held until that is known.

Behind the python tag (`tag()`) everything is a call, with any name, or malformed. Without the tag only functions named
in `tools` are called: `{"name": ...}` outside other brackets, `<function=name>{...}`, a list of calls alone on its
line. Nothing between backticks is a call, and neither is JSON that merely has a name. Not covered: sending arguments on
before the call is whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from herd.text.call_candidates import Candidate, Open, begin
from herd.text.call_forms import Reading, read_tagged
from herd.text.message import ToolCall


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Call:
    call: ToolCall


@dataclass(frozen=True)
class Malformed:
    """Text that began as a call and is none; `tagged` if the python tag stood before it."""

    text: str
    reason: str
    tagged: bool = False


Event = Text | Call | Malformed
_SEPARATORS = " \t\r\n;,"


class ToolParser:
    """Push the pieces of one reply, call `tag` where the python tag stands, `finish` at the end; then it is as new."""

    def __init__(self, tools: Collection[str] = ()) -> None:
        """`tools`: the functions whose calls are recognised without the python tag."""
        self._tools = frozenset(tools)
        self._body: list[str] | None = None  # what stands behind the python tag, once it has come
        self._reset()

    def push(self, text: str) -> list[Event]:
        """The events that `text` completes."""
        if self._body is not None:
            self._body.append(text)
        elif not self._tools:
            self._text.append(text)
        else:
            for character in text:
                self._step(character)
        return self._take()

    def tag(self) -> list[Event]:
        """The python tag: what follows is a call. (Text that spells it is text.)"""
        self._settle()
        self._body = []
        return self._take()

    def finish(self) -> list[Event]:
        """The rest of the events, at the end of the reply."""
        self._settle()
        events = self._take()
        self._reset()
        return events

    def _reset(self) -> None:
        self._events: list[Event] = []
        self._text: list[str] = []
        self._gap: list[str] = []  # separators behind a call: dropped if another call follows
        self._after_call = False
        self._candidate: Candidate | None = None
        self._body = None
        self._place = _Place()

    def _take(self) -> list[Event]:
        self._flush()
        events, self._events = self._events, []
        return events

    def _flush(self) -> None:
        if text := "".join(self._text):
            self._events.append(Text(text))
        self._text = []

    def _step(self, character: str) -> None:
        waiting = [character]
        while waiting:  # a refused candidate's text is read again behind its first character
            character = waiting.pop()
            if self._candidate is None:
                self._candidate = begin(character, self._tools) if self._place.allows(character) else None
                if self._candidate is None:
                    self._plain(character)
                continue
            answer = self._candidate.feed(character)
            if answer is Open.REFUSED:
                held, self._candidate = self._candidate.held, None
                self._plain(held[0])
                waiting += reversed(held[1:])
            elif answer is Open.DONE:
                rest = self._decide(self._candidate)
                waiting += reversed(rest)

    def _plain(self, character: str) -> None:
        self._place.move(character)
        if self._after_call and character in _SEPARATORS:
            self._gap.append(character)
        else:
            self._text += [*self._gap, character]
            self._gap, self._after_call = [], False

    def _decide(self, candidate: Candidate) -> str:
        """Make events of a candidate that is whole, or that the reply's end cut off; returns what it did not use."""
        self._candidate = None
        text, reading, rest = candidate.result()
        if reading is None:
            for character in text:
                self._plain(character)
        else:
            if isinstance(reading, str):
                self._text += self._gap
            self._report(text, reading, tagged=False)
            self._place.move_over_call()
        return rest

    def _report(self, text: str, reading: Reading, *, tagged: bool) -> None:
        self._flush()
        if isinstance(reading, str):
            self._events.append(Malformed(text, reading, tagged))
        else:
            self._events += [Call(call) for call in reading]
        self._gap, self._after_call = [], not isinstance(reading, str)

    def _settle(self) -> None:
        """Decide whatever is open, as nothing can follow it."""
        if self._body is not None:
            body, self._body = "".join(self._body), None
            self._report(body, read_tagged(body), tagged=True)
        while self._candidate is not None:
            for character in self._decide(self._candidate):
                self._step(character)
        self._text += self._gap if "".join(self._gap).strip() else []
        self._gap = []


class _Place:
    """Where in the prose the reader stands: in code, inside brackets, at the beginning of a line."""

    def __init__(self) -> None:
        self._depth = self._run = self._fence = self._newlines = 0
        self._line_begins = True

    def allows(self, character: str) -> bool:
        """Whether a call may begin with `character` here."""
        fence = self._fence_behind_run()
        if fence or self._depth or character not in "{[<":
            return False
        return character != "[" or self._line_begins

    def move(self, character: str) -> None:
        if character == "`":
            self._run += 1
            self._line_begins = False
            return
        self._fence, self._run = self._fence_behind_run(), 0
        if character == "\n":
            self._newlines += 1
            self._line_begins = True
            self._fence = self._fence if self._fence > 2 else 0  # code inside a line ends with it
            self._depth = self._depth if self._newlines < 2 else 0
            return
        if not character.isspace():
            self._newlines, self._line_begins = 0, False
        if not self._fence:
            self._depth = max(0, self._depth + (character in "{[") - (character in "}]"))

    def move_over_call(self) -> None:
        self._fence, self._run = self._fence_behind_run(), 0
        self._line_begins, self._newlines = False, 0

    def _fence_behind_run(self) -> int:
        """The backticks that opened the code the reader stands in (0: none), once the present run of them has ended."""
        if not self._run:
            return self._fence
        if not self._fence:
            return self._run
        return 0 if self._run == self._fence or self._run > self._fence > 2 else self._fence
