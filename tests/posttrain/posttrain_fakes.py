"""Tasks, verdicts and generators for the tests of posttrain/, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from herd.generate.protocol import Completion, Request
from herd.posttrain.records import Candidate, Judged, Ruling
from herd.progress import Progress
from herd.text.chat import encode_content
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sum:
    """A task whose right answer is `right`."""

    id: str
    messages: tuple[Message, ...]
    right: str
    capability: str = "math"
    lang: str = "en"


@dataclass(frozen=True)
class Verdict:
    ok: bool
    reason: str


def verify(task: Sum, reply: Message) -> Verdict | None:
    if task.right == "":
        return None
    ok = reply.content == task.right
    return Verdict(ok, "" if ok else "another number")


def sums(count: int, capability: str = "math") -> list[Sum]:
    return [
        Sum(f"{capability}/{n}", (Message("user", f"What is {n} and {n + 3}?"),), f"It is {2 * n + 3}.", capability)
        for n in range(count)
    ]


@cache
def bytes_tokenizer() -> Tokenizer:
    """No merges: every byte is a token."""
    return Tokenizer.train([])


@dataclass
class Scripted:
    """A generator that says what `reply(prompt text, seed)` says; counts its requests."""

    reply: Callable[[str, int], str]
    tokenizer: Tokenizer = field(default_factory=bytes_tokenizer)
    requests: int = 0
    fail_after: int | None = None

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Completion]:
        done = []
        for request in requests:
            if self.fail_after is not None and self.requests >= self.fail_after:
                raise KeyboardInterrupt
            self.requests += 1
            text = self.reply(self.tokenizer.decode(request.prompt), request.sampling.seed)
            ids = [*encode_content(self.tokenizer, Message("assistant", text)), self.tokenizer.eot]
            cut = ids[: request.sampling.max_tokens]
            finish = "stop" if cut[-1] == self.tokenizer.eot else "length"
            done.append(Completion(tuple(cut), tuple(-0.5 for _ in cut), finish))  # type: ignore[arg-type]
        return done


@dataclass
class Notes:
    """A progress that remembers its notes."""

    notes: list[str] = field(default_factory=list)

    def update(self, done: float, total: float, unit: str, facts: object = None) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def judged(
    text: str,
    ruling: Ruling = "correct",
    *,
    task_id: str = "math/0",
    index: int = 0,
    reward: float | None = None,
    logprob: float = -1.0,
    finish: str = "stop",
) -> Judged:
    """A reply with its ruling; `logprob` is of the whole reply."""
    candidate = Candidate(task_id, index, (index,), (logprob,), text, finish)  # type: ignore[arg-type]
    return Judged(candidate, Message("assistant", text), ruling, "" if ruling == "correct" else "wrong", reward)
