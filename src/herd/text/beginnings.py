"""Renderings of the first messages of one conversation by a chat template, which have much in common.

texts = Beginnings(raw, write)         raw: messages as templates take them; write(raw, opened) renders some of them
texts.render(3, opened=True)           the first three, every message of which is looked for in the text
texts.know(text, 2)                    later texts are likely to begin with this one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from herd.errors import InputError


class Beginnings:
    """The first messages of one conversation as text, any number of them. What a text was found to hold is not looked
    for again in those that begin with it: a long dialogue is rendered a few times for every answer.
    """

    def __init__(self, raw: Sequence[Mapping[str, Any]], write: Callable[[Sequence[Mapping[str, Any]], bool], str]):
        self._raw, self._write = raw, write
        self._known, self._n_known = "", 0  # a text that holds the first n messages

    def render(self, n: int, *, opened: bool) -> str:
        """`FolderTemplate.render` of the first `n` messages."""
        text = self._write(self._raw[:n], opened)
        sure = text.startswith(self._known)
        for number in range(self._n_known if sure else 0, n):
            if what := self._left_out(text, number, len(self._known) if sure else 0):
                raise InputError(
                    f"the model's chat template leaves out the {what} of message {number + 1} "
                    f"({self._raw[number]['role']})",
                    mend="the model was not trained with such messages; leave them out of the conversation",
                )
        return text

    def know(self, text: str, n: int) -> None:
        """The first `n` messages are written as `text`, with which later renderings are likely to begin."""
        if self._n_known <= n and text.startswith(self._known):
            start = len(self._known)
            if not any(self._left_out(text, number, start) for number in range(self._n_known, n)):
                self._known, self._n_known = text, n

    def _left_out(self, text: str, number: int, start: int) -> str:
        """Of what message `number` says the text is without: its end, or a called function's name (some drop thoughts).
        It is likely to stand behind `start`.
        """
        message = self._raw[number]
        end = message["content"].strip()[-16:].strip()
        names = [call["function"]["name"] for call in message.get("tool_calls", ())]
        for part, what in [(end, "content"), *((name, "tool call") for name in names)]:
            spelled = json.dumps(part, ensure_ascii=False)[1:-1]
            if not any(text.find(each, first) >= 0 for first in (start, 0) for each in (part, spelled)):
                return what
        return ""
