"""What every source of text has in common: requests in, completions out. Imports no torch.

Rejection sampling, judging and evaluation speak to `Generator`; the embedded engine (`herd.generate.engine`) is one,
a served model can be another. How the settings of `Sampling` act together, and in which order, is told in
docs/generation.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from herd.errors import SettingError
from herd.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INFINITY = float("inf")
MOST_ALTERNATIVES = 20  # as OpenAI's API and vLLM's default
MOST_BIAS = 100.0  # as OpenAI's API: as good as certain, or never


@dataclass(frozen=True)
class Sampling:
    """How to continue one prompt.

    Temperature 0 takes the likeliest token. The nucleus keeps the likeliest tokens until their mass exceeds `top_p`.
    Tokens are a function of model, prompt and these settings alone: two requests that are to differ need two seeds
    (`candidates`). Defaults leave the model's distribution as it is.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop_ids: tuple[int, ...] = ()
    seed: int = 0
    top_k: int = 0  # keep this many of the likeliest tokens; 0 keeps all
    min_p: float = 0.0  # keep tokens at least this share as likely as the likeliest one
    repetition_penalty: float = 1.0  # over 1: ids of the prompt and the continuation become less likely (Keskar 2019)
    presence_penalty: float = 0.0  # taken once from the logit of each id that the continuation holds
    frequency_penalty: float = 0.0  # taken from it as often as the continuation holds the id
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, what is added to its logit); a mapping is taken too
    stop: tuple[str, ...] = ()  # texts that end the continuation, across token boundaries; a single one is taken too
    top_logprobs: int = 0  # for each token so many of the likeliest ids, with their log-probabilities
    prompt_logprobs: bool = False  # the prompt's own log-probabilities too

    def __post_init__(self) -> None:
        bias = self.logit_bias.items() if isinstance(self.logit_bias, Mapping) else self.logit_bias
        object.__setattr__(self, "logit_bias", tuple(sorted((token, by) for token, by in bias)))
        object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        stop: object = self.stop
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(self.stop))
        for name in ("max_tokens", "seed", "top_k", "top_logprobs"):
            _require(isinstance(getattr(self, name), Integral), name, repr(getattr(self, name)), "give a whole number")
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            _require(isinstance(getattr(self, name), Real), name, repr(getattr(self, name)), "give a number")
        finite = 0 <= self.temperature < INFINITY
        _require(finite, "temperature", self.temperature, "give 0 or a positive number")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "give a share over 0 and up to 1; 1 keeps all tokens")
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "give 1 at least")
        _require(self.top_k >= 0, "top_k", self.top_k, "give 1 at least, or 0 to keep all tokens")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "give a share from 0 to 1; 0 keeps all tokens")
        positive = 0 < self.repetition_penalty < INFINITY
        _require(positive, "repetition_penalty", self.repetition_penalty, "give a positive number; 1 changes nothing")
        for name in ("presence_penalty", "frequency_penalty"):
            _require(-2 <= getattr(self, name) <= 2, name, getattr(self, name), "give a number from -2 to 2")
        for token, by in self.logit_bias:
            _require(token >= 0, "logit_bias", f"for id {token}", "give ids of the vocabulary")
            _require(abs(by) <= MOST_BIAS, "logit_bias", f"{by} for id {token}", "give numbers from -100 to 100")
        twice = len({token for token, _ in self.logit_bias}) < len(self.logit_bias)
        _require(not twice, "logit_bias", "given twice for one id", "give each id once")
        _require(all(self.stop), "stop", "an empty text", "leave it out: every continuation holds it")
        most = f"give a number from 0 to {MOST_ALTERNATIVES}"
        _require(0 <= self.top_logprobs <= MOST_ALTERNATIVES, "top_logprobs", self.top_logprobs, most)


def _require(holds: bool, name: str, value: object, mend: str) -> None:
    if not holds:
        raise SettingError(f"{name} is {value}", where=name, mend=mend)


class Constraint(Protocol):
    """What one continuation may hold, token by token: where a grammar library comes in. It is used once.

    An InputError of either method ends this continuation, as its `problem`; at the first mask it refuses the request.
    """

    def mask(self) -> NDArray[np.bool_]:
        """[V], True for the ids that may come next. None at all: the continuation is whole and ends."""

    def advance(self, token: int) -> None:
        """`token` came, one of those that the last mask allowed."""

    def forced(self) -> Sequence[int]:
        """Ids that come next whatever the model says, as far as that is known; the engine has them in one pass."""


class Grammar(Protocol):
    def start(self) -> Constraint:
        """A constraint at its beginning, one for each continuation."""


@dataclass(frozen=True)
class Request:
    """A prompt as ids, begin-of-text and all (`herd.text.encode_prompt`), and how to continue it."""

    prompt: tuple[int, ...]
    sampling: Sampling = Sampling()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", tuple(self.prompt))

    def candidates(self, n: int) -> list[Request]:
        """The request and n - 1 like it, each with a seed of its own made of this one and its number."""
        if n < 1:
            raise SettingError(f"n is {n}", where="n", mend="give 1 at least")
        return [replace(self, sampling=replace(self.sampling, seed=_seed(self.sampling.seed, i))) for i in range(n)]


def _seed(seed: int, number: int) -> int:
    """Not seed + number: the candidates of neighbouring seeds are to differ too."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little")


Alternatives = tuple[tuple[int, float], ...]  # (id, log-probability), the likeliest first


@dataclass(frozen=True)
class Completion:
    """What was sampled. With finish "stop" the last token is the stop id, or the one that completed a stop text, or the
    last that the grammar has room for; "length" means that there was no more room, or that a grammar gave up.

    `logprobs[t]` is the natural logarithm of the probability that the model itself, at temperature 1 and over all
    tokens, gave `tokens[t]`: what a trainer computes for the same ids. The other log-probabilities are the same kind.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    text: str | None = None  # with stop texts: what was said before the one that ended it
    stop: str = ""  # the stop text that ended it
    top_logprobs: tuple[Alternatives, ...] = ()  # one a token, where they were asked for
    prompt_logprobs: tuple[float, ...] = ()  # one for each id of the prompt but the first, where they were asked for
    prompt_top_logprobs: tuple[Alternatives, ...] = ()  # the same, where both were asked for
    problem: str = ""  # why a grammar could not be followed to its end
    cached: int = 0  # ids of the prompt that were not computed for this request: another's pages held them


class Sampled(NamedTuple):
    """One token of a request under way."""

    number: int  # the request's
    token: int
    logprob: float
    top: Alternatives  # as many as the request asks for


@dataclass(frozen=True)
class Step:
    """What one step of an engine did: the tokens it sampled, those of one request in their order (several where drafts
    were accepted), and the requests that ended."""

    sampled: list[Sampled]
    finished: list[tuple[int, Completion]]


class Generator(Protocol):
    def generate(self, requests: Sequence[Request], progress: Progress = ...) -> list[Completion]:
        """One completion for each request, in the order of the requests."""


SILENT = Silent()
