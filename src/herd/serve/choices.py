"""One answer while it comes: what it has said, which calls it has made, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from herd.generate.protocol import Completion
from herd.serve.backend import Answers, Ended, Said
from herd.serve.reading import Call, Reader, Text
from herd.text import ToolCall

Finish = Literal["stop", "length", "tool_calls"]


class GoneError(Exception):
    """The client has left; nobody reads an answer."""


@dataclass(eq=False)
class Choice:
    """`single`: the answer ends with its first call."""

    reader: Reader
    stop_ids: frozenset[int]
    single: bool = False
    n_tokens: int = 0
    cached: int = 0
    completion: Completion | None = None
    finish: Finish | None = None
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)  # all tokens but the stop id

    def hear(self, event: Said | Ended) -> list[Text | Call]:
        """What can be shown more."""
        if self.finish is not None:  # the answer was cut after its one call
            return []
        if isinstance(event, Ended):
            return self._end(event.completion)
        self.n_tokens += 1
        if event.token not in self.stop_ids:
            self.said.append(event)
        return self._keep(self.reader.push(event.token))

    def _end(self, completion: Completion) -> list[Text | Call]:
        self.cached, self.completion = completion.cached, completion
        new = self._keep(self.reader.finish())
        self.finish = "tool_calls" if self.calls else completion.finish
        return new

    def _keep(self, new: Sequence[Text | Call]) -> list[Text | Call]:
        kept: list[Text | Call] = []
        for one in new:
            kept.append(one)
            if isinstance(one, Text):
                self.text.append(one.text)
            else:
                self.calls.append(one.call)
                if self.single:
                    self.finish = "tool_calls"
                    break
        return kept


async def collect(answers: Answers, choices: Sequence[Choice]) -> None:
    """Hear all answers to their ends. GoneError when they were cancelled meanwhile."""
    async for events in answers:
        for event in events:
            hear(answers, choices, event)
    if any(choice.finish is None for choice in choices):
        raise GoneError


def hear(answers: Answers, choices: Sequence[Choice], event: Said | Ended) -> list[Text | Call]:
    """Hand an event to its answer, and stop one that has made its only call."""
    choice = choices[event.which]
    new = choice.hear(event)
    if choice.finish is not None and isinstance(event, Said):
        answers.cancel(event.which)
    return new


def usage_of(n_prompt: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """`usage`, the prompt counted once however many answers it has."""
    n_tokens = sum(choice.n_tokens for choice in choices)
    cached = max((choice.cached for choice in choices[:1]), default=0)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_tokens,
        "total_tokens": n_prompt + n_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
