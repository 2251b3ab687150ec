"""An answer out of its tokens while they come: text that may be shown, and calls of the tools that were offered.

    reader = Reader(tokenizer, stops=("\\n\\n",), tools=["weather"])
    reader.push(token)      == [Text("Let me see. ")]
    reader.finish()         == [Call(ToolCall("weather", {...}))]

Stop texts are cut out, calls of functions that nobody offered are text. Without tools nothing is a call.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from herd.generate.stops import StopText
from herd.text import StreamDecoder, Tokenizer, ToolCall, ToolParser
from herd.text.tool_parser import Call, Event, Malformed, Text


class Reader:
    """Push the tokens of one answer; `finish` when it has ended."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        tools: Collection[str] = (),
        continues: bool = False,
    ) -> None:
        """`continues`: the answer goes on with the prompt's text, and is no message of its own."""
        self._decoder = StreamDecoder(tokenizer, skip_special=True, continues=continues)
        self._stops = StopText(self._decoder, tuple(stops)) if stops else None
        self._source = self._stops or self._decoder
        self._tools, self._n_ids = frozenset(tools), tokenizer.vocab_size
        self._parser = ToolParser(tools) if tools else None
        self._tag = tokenizer.python_tag if tools else None

    def push(self, token: int) -> list[Text | Call]:
        """The events that `token` completes. Rows of the embedding beyond the tokenizer's ids say nothing."""
        if token >= self._n_ids:
            return []
        if self._parser is None:
            return _texts(self._source.push(token))
        if token == self._tag:
            return self._known([*self._parser.push(self._source.flush()), *self._parser.tag()])
        return self._known(self._parser.push(self._source.push(token)))

    def finish(self) -> list[Text | Call]:
        """The rest, at the end of the answer."""
        rest = self._source.flush()
        if self._parser is None:
            return _texts(rest)
        return self._known([*self._parser.push(rest), *self._parser.finish()])

    def _known(self, events: Sequence[Event]) -> list[Text | Call]:
        found: list[Text | Call] = []
        for event in events:
            if isinstance(event, Malformed):
                found += _texts(event.text)
            elif isinstance(event, Call) and event.call.name not in self._tools:
                found += _texts(event.call.text())
            else:
                found.append(event)
        return found


def _texts(text: str) -> list[Text | Call]:
    return [Text(text)] if text else []


__all__ = ["Call", "Reader", "Text", "ToolCall"]
