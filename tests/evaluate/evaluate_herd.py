"""A tiny suite, a tokenizer and a generator that answers from a dictionary: evaluation without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from herd.evaluate.suite import Item, SuiteResult
from herd.generate.protocol import SILENT, Completion, Request, Sampling
from herd.paddock.task import Check, Task
from herd.progress import Progress
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer


def tokenizer() -> Tokenizer:
    return Tokenizer.train(["What is the capital of France? Paris", "Wie heißt die Hauptstadt? ปารีส"])


def task(name: str, capability: str, lang: str, question: str, answer: str) -> Task:
    return Task(
        id=name,
        capability=capability,
        lang=lang,
        messages=(Message("user", question),),
        answer=Message("assistant", answer),
        check=Check("contains", {"expected": answer}),
        split="held_out",
    )


TASKS = (
    task("k-en-1", "knowledge", "en", "Capital of France?", "Paris"),
    task("k-en-2", "knowledge", "en", "Capital of Peru?", "Lima"),
    task("k-th-1", "knowledge", "th", "เมืองหลวงของฝรั่งเศส?", "ปารีส"),
    task("m-en-1", "math", "en", "1 + 1?", "2"),
)


@dataclass
class Parrot:
    """Answers a question with what the dictionary holds for it; without an entry it babbles until cut off."""

    tokenizer: Tokenizer
    replies: Mapping[str, str]
    seen: list[Request] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], progress: Progress = SILENT) -> list[Completion]:
        self.seen += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        prompt = self.tokenizer.decode(request.prompt)
        for question, reply in self.replies.items():
            if question in prompt:
                tokens = (*self.tokenizer.encode(reply), self.tokenizer.eot)
                return Completion(tokens, (-0.5,) * len(tokens), "stop")
        tokens = tuple(self.tokenizer.encode("so " * 200)[: request.sampling.max_tokens])
        return Completion(tokens, (-2.0,) * len(tokens), "length")


def result(right: Mapping[str, bool], suite: str = "paddock", version: str = "1") -> SuiteResult:
    """A result with one item for each name `capability-lang-number`."""
    items = tuple(
        Item(
            name,
            *name.split("-")[:2],
            f"ask {name}",
            "yes",
            "yes" if ok else "no",
            ok,
            "" if ok else "wrong",
            "stop",
            2,
            -0.1,
        )
        for name, ok in right.items()
    )
    return SuiteResult(suite, version, "0" * 64, Sampling(temperature=0.0, stop_ids=(3,)), items)
