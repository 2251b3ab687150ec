"""Text out of a stream of ids, whole characters only, and the tool calls in it."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from typing import Protocol

from herd.text.tokenizer import Tokenizer
from herd.text.tool_parser import Event, Malformed, ToolParser


class Decoder(Protocol):
    """`StreamDecoder`, or what stands before one."""

    def push(self, token: int) -> str: ...

    def flush(self) -> str: ...


class StreamDecoder:
    """Push ids one at a time; the pieces joined are `Tokenizer.decode` of all ids.

    A character whose bytes come in several tokens is held back until it is whole (a llama emoji can be three tokens).
    U+FFFD comes out only for bytes that are not UTF-8, whatever follows.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False, *, continues: bool = False) -> None:
        """`continues`: the ids go on with a text, so that a space before them is a space (Llama 2's tokenizers)."""
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._begins_anew = tokenizer.prefixes_space and not continues
        self._at_start = self._begins_anew
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is still in parts."""
        raw = self._tokenizer.token_bytes(token, self._skip_special)
        if self._at_start and raw:
            raw, self._at_start = raw.removeprefix(b" "), False
        return self._decoder.decode(raw)

    def flush(self) -> str:
        """What is held back, as U+FFFD, at the end of the stream; the decoder can then be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._at_start = self._begins_anew
        return rest


class ReplyStream:
    """Push the ids of a reply one at a time; out come text, calls and malformed calls (`herd.text.tool_parser`).

    Only the python tag's id is a tag, text that spells it is not. Stop ids leave nothing; any other special id is
    reported at once as malformed, without text (`parse_reply` then takes no call from the reply).
    """

    def __init__(self, tokenizer: Tokenizer, tools: Collection[str] = (), decoder: Decoder | None = None) -> None:
        """`tools`: the functions whose calls are recognised without the python tag. `decoder`: what makes text of the
        ids, special ones left out; it may keep some of it back for good (stop texts)."""
        self._tokenizer, self._tag = tokenizer, tokenizer.python_tag
        self._decoder = decoder or StreamDecoder(tokenizer, skip_special=True)
        self._parser = ToolParser(tools)

    def push(self, token: int) -> list[Event]:
        """The events that `token` completes."""
        if token == self._tag:
            return [*self._parser.push(self._decoder.flush()), *self._parser.tag()]
        if self._tokenizer.is_special(token) and token not in self._tokenizer.stop_ids:
            return [Malformed("", f"{self._tokenizer.decode([token])} inside the reply")]
        return self._parser.push(self._decoder.push(token))

    def finish(self) -> list[Event]:
        """The rest of the events, at the end of the reply."""
        return [*self._parser.push(self._decoder.flush()), *self._parser.finish()]
