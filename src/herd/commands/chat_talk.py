"""A conversation in the terminal: its history, its tools, and one answer after another."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from herd.commands.chat_reading import Reading
from herd.commands.chat_screen import Screen
from herd.commands.chat_tools import Tools
from herd.errors import HerdError
from herd.generate import Request, Sampling
from herd.text import Message, Tokenizer, encode_prompt
from herd.text.tool_parser import Event, Malformed, Text

_ROUNDS = 8  # answers in a row that call tools herd itself carries out; then the user is asked


class Answers(ABC):
    """Where answers come from. `known`: ids of the last prompt that did not have to be computed."""

    known: int = 0

    @abstractmethod
    def stream(self, request: Request) -> Iterator[int]:
        """The ids of an answer as they come; the stop id is the last."""


@dataclass
class Conversation:
    """`context` is what prompt and answer may take together, in tokens. `sampling` is the user's: its `stop_ids` are
    those beside the tokenizer's own."""

    answers: Answers
    tokenizer: Tokenizer
    sampling: Sampling
    context: int
    screen: Screen
    system: str | None = None
    tools: Tools = field(default_factory=Tools)
    history: list[Message] = field(default_factory=list)
    n_answers: int = 0
    saved: Path | None = None  # the file that holds it, which may be written again

    def __post_init__(self) -> None:
        self.begun = self.sampling  # what `/set NAME default` goes back to

    def messages(self) -> list[Message]:
        """System message and history, without what tells of the tools."""
        return [*([Message("system", self.system)] if self.system else []), *self.history]

    def say(self, message: Message) -> str:
        """Put `message` to the model and print its answer as it comes; both enter the history.

        Calls of herd's own tools are carried out, and the model goes on. Returns "interrupted" when Ctrl-C cut an
        answer, else "".
        """
        for _ in range(_ROUNDS):
            kept = len(self.history)
            self.history.append(message)
            try:
                reply, interrupted = self._answer()
            except HerdError as error:  # the conversation goes on without the line
                del self.history[kept:]
                self.screen.finish()
                self.screen.remark(str(error))
                return ""
            if reply is None:
                del self.history[kept:]
                return ""
            self.history.append(reply)
            if interrupted:
                return "interrupted"
            result = self.tools.run(reply.tool_calls[0]) if reply.tool_calls else None
            if result is None:
                if reply.tool_calls:
                    self.screen.remark("/tool RESULT answers the call")
                return ""
            self.screen.remark(f"{reply.tool_calls[0].name} gives {result}")
            message = Message("ipython", result)
        self.history.append(message)
        self.screen.remark(f"{_ROUNDS} calls in a row; /retry lets the model go on")
        return ""

    def retry(self) -> str:
        """Have the last line, or the last tool's result, answered anew."""
        before = list(self.history)
        if before and before[-1].role == "assistant":
            self.history.pop()
        if not self.history:
            self.screen.remark("nothing was said yet")
            return ""
        ended = self.say(self.history.pop())
        if not (self.history and self.history[-1].role == "assistant"):  # there was no other answer
            self.history = before
        return ended

    def _answer(self) -> tuple[Message | None, bool]:
        """One answer to the history, and whether Ctrl-C cut it; None if the context has no room for it."""
        messages = self.tools.prepare(self.messages())
        prompt = tuple(encode_prompt(self.tokenizer, messages))
        if len(prompt) >= self.context:
            self._refuse(len(prompt))
            return None, False
        how = self.sampling
        stop_ids = (*self.tokenizer.stop_ids, *how.stop_ids)
        request = Request(prompt, replace(how, stop_ids=stop_ids, seed=how.seed + self.n_answers))
        clock, reading = Clock(), Reading(self.tokenizer, self.tools.names, how.stop)
        interrupted = self._print(self.answers.stream(request), reading, clock)
        self.n_answers += 1
        reply = reading.message()
        self._remark(request, reading, reply, interrupted)
        if self.screen.terminal:
            self.screen.remark(clock.words(len(reading.ids), len(prompt), self.answers.known))
        return reply, interrupted

    def _print(self, ids: Iterator[int], reading: Reading, clock: Clock) -> bool:
        """Show an answer as it comes; whether Ctrl-C cut it."""
        try:
            for token in ids:
                clock.tick()
                self._show(reading.push(token))
        except KeyboardInterrupt:
            return True
        finally:
            self._show(reading.finish())
            self.screen.finish()
        return False

    def _show(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Text):
                self.screen.push(event.text)
            elif isinstance(event, Malformed):
                self.screen.push(f"[calls a tool] {event.text}" if event.tagged else event.text)
            else:
                self.screen.finish()
                self.screen.line(f"[calls a tool] {event.call.text()}")

    def _remark(self, request: Request, reading: Reading, reply: Message, interrupted: bool) -> None:
        """Say whatever about the answer the answer itself does not show."""
        ids = reading.ids
        if interrupted:
            self.screen.remark("stopped; Ctrl-C once more leaves")
        elif reading.stopped:
            if not (reply.content or reply.tool_calls):
                self.screen.remark(f"the answer begins with the stop text {json.dumps(reading.stopped)}")
        elif not ids or ids[-1] not in request.sampling.stop_ids:
            if len(request.prompt) + len(ids) >= self.context:
                self.screen.remark(f"cut off: the context of {self.context} tokens is full; /reset begins anew")
            else:
                self.screen.remark(f"cut off after {len(ids)} tokens, as many as one answer may have")
        if reply.problem:
            self.screen.remark(reply.problem)

    def _refuse(self, n_tokens: int) -> None:
        self.screen.remark(
            f"not sent: with this line the conversation has {n_tokens} tokens, and the model's context is "
            f"{self.context}; /reset begins anew, nothing was cut"
        )


class Clock:
    """When the tokens of one answer came."""

    def __init__(self) -> None:
        self._start = self._first = self._last = time.monotonic()
        self._ticks = 0

    def tick(self) -> None:
        self._last = time.monotonic()
        if not self._ticks:
            self._first = self._last
        self._ticks += 1

    def words(self, n_tokens: int, n_prompt: int, known: int) -> str:
        """The first token is the prompt's time; the rate is of those behind it."""
        passed = self._last - self._first
        rate = f", {(n_tokens - 1) / passed:.3g} tokens/s" if n_tokens > 1 and passed > 0 else ""
        prompt = f"; prompt of {n_prompt}, {known} of them known" if known else f"; prompt of {n_prompt}"
        return f"{n_tokens} tokens{rate}, first after {self._first - self._start:.2g} s{prompt}"
