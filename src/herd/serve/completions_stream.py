"""The answer to a completions request as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from herd.serve.backend import Answers, Ended, Said, Served
from herd.serve.choices import hear
from herd.serve.completions import Completions
from herd.serve.logprobs import completion_logprobs, shown
from herd.serve.reading import Text
from herd.serve.replies import dumps
from herd.serve.sse import DONE, event, grouped


class CompletionsStream:
    """The events of one request's answers."""

    def __init__(self, asked: Completions, served: Served, name: str) -> None:
        self._asked, self._served = asked, served
        self._head = asked.head(served, name) | ({"usage": None} if asked.usage else {})
        self._beginning = b"data: " + dumps(self._head)[:-1] + b',"choices":[{"index":'
        self._choices = asked.choices(served)
        self._offsets = [0] * len(self._choices)

    async def events(self, answers: Answers) -> AsyncIterator[bytes]:
        """Bytes to send, each time at once."""
        if opening := self._opening():
            yield opening
        async for batch in answers:
            if data := b"".join(self._one(answers, some) for some in grouped(batch)):
                yield data
        if any(choice.finish is None for choice in self._choices):
            return  # nobody listens any more
        if self._asked.usage:
            yield event(dumps(self._head | {"choices": [], "usage": self._asked.usage_of(self._choices)}))
        yield DONE

    def _opening(self) -> bytes:
        """What had no effect, and the prompts where they are echoed."""
        found = b""
        if self._asked.warnings:
            found += event(dumps(self._head | {"choices": [], "warnings": list(self._asked.warnings)}))
        for index in range(len(self._choices)) if self._asked.echo else ():
            found += self._chunk(index, self._asked.prompts[index // self._asked.n].text)
        return found

    def _one(self, answers: Answers, batch: Sequence[Said | Ended]) -> bytes:
        """The events that a batch of one answer makes."""
        index = batch[0].which
        choice = self._choices[index]
        n_said = len(choice.said)
        heard = [new for one in batch for new in hear(answers, self._choices, one)]
        if self._asked.silent:
            return self._chunk(index, "", "length") if choice.finish else b""
        text = "".join(new.text for new in heard if isinstance(new, Text))
        found = self._text(index, text, choice.said[n_said:])
        return found + (self._chunk(index, "", choice.finish) if choice.finish else b"")

    def _text(self, index: int, text: str, said: Sequence[Said]) -> bytes:
        if self._asked.n_top is not None and said:
            return self._chunk(index, text, None, self._logprobs(index, said))
        if not text:
            return b""
        quoted = encode_basestring_ascii(text).encode("ascii")
        return b'%b%d,"text":%b,"logprobs":null,"finish_reason":null}]}\n\n' % (self._beginning, index, quoted)

    def _logprobs(self, index: int, said: Sequence[Said]) -> dict[str, Any]:
        n_top, tokenizer = self._asked.n_top or 0, self._served.tokenizer
        tokens = [one.token for one in said]
        found = completion_logprobs(
            tokenizer, tokens, [one.logprob for one in said], [one.top[:n_top] for one in said], self._offsets[index]
        )
        self._offsets[index] += sum(len(shown(tokenizer, token)) for token in tokens)
        return found

    def _chunk(self, index: int, text: str, finish: str | None = None, logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return event(dumps(self._head | {"choices": [choice]}))
