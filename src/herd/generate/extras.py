"""What one row of a batch keeps for a request that asks for more than temperature, truncation and stop ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from herd.errors import SettingError
from herd.generate.edits import Edits
from herd.generate.protocol import Alternatives, Request
from herd.generate.stops import StopText
from herd.text.stream import Decoder

MakeDecoder = Callable[[], Decoder]


class Extras:
    """Edits of the logits, stop texts, alternatives and the prompt's log-probabilities of one request."""

    def __init__(self, request: Request, vocab_size: int, decoder: MakeDecoder | None) -> None:
        how = request.sampling
        check_stop(request, decoder)
        self.edits = Edits(request, vocab_size) if Edits.wanted(request) else None
        self.n_top = how.top_logprobs
        self.top: list[Alternatives] = []
        self._prompt_logprobs: list[float] = []
        self._prompt_top: list[Alternatives] = []
        self._text = StopText(decoder(), how.stop) if how.stop and decoder else None
        self._pieces: list[str] = []

    @classmethod
    def of(cls, request: Request, vocab_size: int, decoder: MakeDecoder | None) -> Extras | None:
        """None for a plain request. Raises SettingError and InputError for what cannot be done."""
        how = request.sampling
        wanted = Edits.wanted(request) or bool(how.stop) or how.top_logprobs > 0 or how.prompt_logprobs
        return cls(request, vocab_size, decoder) if wanted else None

    def push(self, token: int, stopped: bool) -> bool:
        """The continuation goes on with `token`; whether it ends here. A stop id is no longer part of the text."""
        if stopped:
            return True
        ends = False
        if self._text is not None:
            self._pieces.append(self._text.push(token))
            ends = bool(self._text.found)
        if self.edits is not None and not ends:
            self.edits.advance(token)
            ends = self.edits.exhausted
        return ends

    def tell_prompt(self, logprobs: Sequence[float], top: Sequence[Alternatives]) -> None:
        self._prompt_logprobs += logprobs
        self._prompt_top += [found[: self.n_top] for found in top] if self.n_top else []

    def completion_fields(self) -> dict[str, Any]:
        """The fields of a `Completion` that only such requests fill."""
        text = None if self._text is None else "".join(self._pieces) + self._text.flush()
        return {
            "text": text,
            "stop": self._text.found if self._text else "",
            "problem": self.edits.problem if self.edits else "",
            "top_logprobs": tuple(self.top),
            "prompt_logprobs": tuple(self._prompt_logprobs),
            "prompt_top_logprobs": tuple(self._prompt_top),
        }


def check_stop(request: Request, decoder: MakeDecoder | None) -> None:
    """Raises SettingError for stop texts that nobody can look for."""
    if request.sampling.stop and decoder is None:
        raise SettingError(
            "stop texts are asked of an engine that knows no text", where="stop", mend="make it with its tokenizer="
        )
