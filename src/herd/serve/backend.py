"""The seam between HTTP and whatever computes: ids in, ids out. Imports no torch.

    answers = backend.submit(request.candidates(2))
    async for events in answers:                 # all that has come since the last time, at least one
        for event in events:
            match event:
                case Said(which, token, logprob, top): ...
                case Ended(which, completion): ...

The embedded engine is one implementation (`engine_backend`), vLLM is another. Everything else, the chat format, tools,
stop texts as they are shown, usage and limits, is the server's and the same for all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from herd.errors import HerdError
from herd.generate.protocol import Alternatives, Completion, Request
from herd.text import Tokenizer


class NotReadyError(HerdError):
    """The model is being loaded, or the server stops: 503."""


class ComputeError(HerdError):
    """A step of the engine failed, and the request with it: 500."""


class Said(NamedTuple):
    """Answer `which` goes on with `token`."""

    which: int
    token: int
    logprob: float
    top: Alternatives


class Ended(NamedTuple):
    """Answer `which` is whole."""

    which: int
    completion: Completion


@dataclass(frozen=True)
class Served:
    """What is served. `room`: the most positions that prompt and answer together may take."""

    tokenizer: Tokenizer
    context: int
    room: int
    vocab_size: int
    fingerprint: str  # changes with the model and with what computes it
    created: int  # seconds since 1970
    embeds: bool = True
    remarks: tuple[str, ...] = ()  # for whoever started the server: device, kernels, memory


@dataclass(frozen=True)
class Load:
    """How busy the engine is. Drafts are tokens that a smaller model proposed."""

    running: int = 0
    waiting: int = 0
    pages: int = 0
    pages_used: int = 0
    drafted: int = 0
    accepted: int = 0


class Answers(Protocol):
    """The answers to requests that were submitted together."""

    def __aiter__(self) -> AsyncIterator[list[Said | Ended]]:
        """Ends when all have ended or were cancelled. Raises ComputeError when a step failed."""

    def cancel(self, which: int | None = None) -> None:
        """Nobody wants answer `which`, or any, any more. Never fails; what ended is left alone."""


class Backend(Protocol):
    """All methods are called on the event loop's thread and return at once."""

    async def start(self) -> None:
        """Begin to load; `served` raises NotReadyError until that is done."""

    async def stop(self) -> None:
        """End what runs, and give everything back."""

    def drain(self) -> None:
        """Take no further request; those under way go on."""

    @property
    def served(self) -> Served:
        """Raises NotReadyError while loading or stopping."""

    @property
    def load(self) -> Load: ...

    def submit(self, requests: Sequence[Request]) -> Answers:
        """All of them or none. Raises NotReadyError, BusyError when the queue is full."""

    async def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The mean of each prompt's last hidden states, of length 1."""
