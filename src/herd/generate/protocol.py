"""What every source of text has in common: requests in, completions out. Imports no torch.

Rejection sampling, judging and evaluation speak to `Generator`; the embedded engine (`herd.generate.engine`) is one,
a served model can be another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from herd.errors import SettingError
from herd.progress import Progress, Silent


@dataclass(frozen=True)
class Sampling:
    """How to continue one prompt.

    Temperature 0 takes the likeliest token. The nucleus keeps the likeliest tokens until their mass exceeds `top_p`.
    Tokens are a function of model, prompt and these settings alone: two requests that are to differ need two seeds.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop_ids: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        if not 0 <= self.temperature < float("inf"):
            raise SettingError(
                f"temperature is {self.temperature}", where="temperature", mend="give 0 or a positive number"
            )
        if not 0 < self.top_p <= 1:
            raise SettingError(
                f"top_p is {self.top_p}", where="top_p", mend="give a share over 0 and up to 1; 1 keeps all tokens"
            )
        if self.max_tokens < 1:
            raise SettingError(f"max_tokens is {self.max_tokens}", where="max_tokens", mend="give 1 at least")


@dataclass(frozen=True)
class Request:
    """A prompt as ids, begin-of-text and all (`herd.text.encode_prompt`), and how to continue it."""

    prompt: tuple[int, ...]
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", tuple(self.prompt))


@dataclass(frozen=True)
class Completion:
    """What was sampled. With finish "stop" the last token is the stop id; "length" means that there was no more room.

    `logprobs[t]` is the natural logarithm of the probability that the model itself, at temperature 1 and over all
    tokens, gave `tokens[t]`: what a trainer computes for the same ids.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]


class Generator(Protocol):
    def generate(self, requests: Sequence[Request], progress: Progress = ...) -> list[Completion]:
        """One completion for each request, in the order of the requests."""


SILENT = Silent()
