"""One answer of `herd chat` out of its ids: what is shown while they come, and the message at its end."""

from __future__ import annotations

from collections.abc import Collection

from herd.generate.stops import StopText
from herd.text import Message, ReplyStream, StreamDecoder, Tokenizer, parse_reply
from herd.text.chat import parse_text
from herd.text.tool_parser import Event


class Reading:
    """Push the ids; `finish` when there are no more. A stop text and what follows are neither shown nor remembered."""

    def __init__(self, tokenizer: Tokenizer, tools: Collection[str], stops: tuple[str, ...]) -> None:
        self.ids: list[int] = []
        self._tokenizer, self._tools, self._texts = tokenizer, tools, stops
        self._stops = self._cutter() if stops else None
        self._stream = ReplyStream(tokenizer, tools, self._stops)

    @property
    def stopped(self) -> str:
        """The stop text that ended the answer, "" if none did."""
        return self._stops.found if self._stops else ""

    def push(self, token: int) -> list[Event]:
        self.ids.append(token)
        return self._stream.push(token)

    def finish(self) -> list[Event]:
        return self._stream.finish()

    def message(self) -> Message:
        """What enters the history. A call that a stop text cut is text, and `problem` says why."""
        if not self.stopped:
            return parse_reply(self._tokenizer, self.ids, tools=self._tools)
        cutter, tag = self._cutter(), self._tokenizer.python_tag
        said, call = "", None
        for token in self.ids:
            if token == tag and call is None:
                said, call = said + cutter.flush(), ""
            elif call is None:
                said += cutter.push(token)
            else:
                call += cutter.push(token)
        return parse_text(said, call, tools=self._tools)

    def _cutter(self) -> StopText:
        return StopText(StreamDecoder(self._tokenizer, skip_special=True), self._texts)
