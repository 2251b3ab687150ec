"""The capability suite: prompts in, replies verified, scores with intervals by capability and language.

    result = run_suite(engine, tokenizer, Suite("paddock", "1", tasks))
    result.average.value, result.by_capability()["math"].low

Replies are greedy unless said otherwise. A prompt is encoded once, with one begin-of-text (a second one costs points:
facts sheet 9.1). Each item keeps its prompt, its whole reply and the verifier's reason, so that a score can be looked
into years later. The suite's average counts every capability the same, however many items it has.

Not here: likelihood scoring (likelihood.py), files (harness.py), comparing two models (compare.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from herd.errors import InputError
from herd.evaluate.statistics import Interval, macro_average, mean_interval
from herd.generate.protocol import SILENT, Completion, Generator, Request, Sampling
from herd.paddock.checks import verify
from herd.paddock.task import Task, Verdict, task_to_dict
from herd.progress import Progress
from herd.text.chat import encode_content, encode_prompt, parse_reply
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer

Verifier = Callable[[Task, Message], Verdict]
"""Judges a parsed reply; the paddock's exact checks by default."""

GREEDY = Sampling(temperature=0.0, max_tokens=256)


@dataclass(frozen=True)
class Suite:
    """Tasks under a name and a version. A change of the tasks or of how they are judged is a new version."""

    name: str
    version: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"{self.name!r} cannot be part of a file's name", where="suite name")
        if not self.tasks:
            raise InputError("a suite without tasks", where=self.name, mend="give at least one task")
        twice = [name for name, count in Counter(task.id for task in self.tasks).items() if count > 1]
        if twice:
            raise InputError(f"{len(twice)} task ids stand twice, {twice[0]!r} first", where=self.name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all tasks in their order, answers and checks included."""
        rows = [task_to_dict(task) for task in self.tasks]
        return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """One task answered. `prompt` and `reply` are spelled with their special tokens, the closing stop left out.

    `target` is the reference reply, `mean_logprob` in nats a sampled token, `finish` as the generator said.
    """

    id: str
    capability: str
    lang: str
    prompt: str
    target: str
    reply: str
    ok: bool
    reason: str
    finish: str
    n_tokens: int
    mean_logprob: float


@dataclass(frozen=True)
class SuiteResult:
    """All items of one model on one suite, in the suite's order, and the scores that follow from them."""

    suite: str
    version: str
    fingerprint: str
    sampling: Sampling
    items: tuple[Item, ...]
    level: float = 0.95

    @cached_property
    def average(self) -> Interval:
        """Mean over capabilities, each counting the same (macro)."""
        return macro_average(grouped(self.items, lambda item: item.capability), self.level)

    def by_capability(self) -> dict[str, Interval]:
        return self._scores(lambda item: item.capability)

    def by_language(self) -> dict[str, Interval]:
        """Mean over the items of a language; languages may hold the capabilities in different shares."""
        return self._scores(lambda item: item.lang)

    def by_cell(self) -> dict[tuple[str, str], Interval]:
        """Scores by capability and language; cells without items are absent."""
        cells: dict[tuple[str, str], list[float]] = {}
        for item in self.items:
            cells.setdefault((item.capability, item.lang), []).append(float(item.ok))
        return {cell: mean_interval(values, self.level) for cell, values in cells.items()}

    def counts(self) -> dict[str, int]:
        """Items a capability."""
        return dict(Counter(item.capability for item in self.items))

    def reasons(self, capability: str | None = None) -> dict[str, int]:
        """Why replies were wrong, the most frequent first."""
        wrong = (i for i in self.items if not i.ok and capability in (None, i.capability))
        return dict(Counter(item.reason for item in wrong).most_common())

    def summary(self) -> dict[str, object]:
        """Scores as plain values, for reports."""
        return {
            "suite": self.suite,
            "version": self.version,
            "n": len(self.items),
            "average": plain(self.average),
            "by_capability": {name: plain(score) for name, score in self.by_capability().items()},
            "by_language": {name: plain(score) for name, score in self.by_language().items()},
            "by_cell": [
                {"capability": capability, "lang": lang, **plain(score)}
                for (capability, lang), score in self.by_cell().items()
            ],
            "counts": self.counts(),
        }

    def _scores(self, key: Callable[[Item], str]) -> dict[str, Interval]:
        return {name: mean_interval(values, self.level) for name, values in grouped(self.items, key).items()}


def run_suite(
    generator: Generator,
    tokenizer: Tokenizer,
    tasks: Suite | Sequence[Task],
    sampling: Sampling = GREEDY,
    verifier: Verifier = verify,
    progress: Progress = SILENT,
) -> SuiteResult:
    """Let `generator` answer every task and judge the replies.

    Stop ids default to the tokenizer's. With a temperature each task draws from its own seed, made of the sampling's
    seed and the task's id, so that a task's reply does not depend on what else is in the suite.
    """
    suite = tasks if isinstance(tasks, Suite) else Suite("tasks", "1", tuple(tasks))
    sampling = sampling if sampling.stop_ids else replace(sampling, stop_ids=tokenizer.stop_ids)
    requests = [
        Request(tuple(encode_prompt(tokenizer, task.messages)), replace(sampling, seed=_seed(sampling.seed, task)))
        for task in suite.tasks
    ]
    completions = generator.generate(requests, progress)
    if len(completions) != len(requests):
        raise InputError(f"the generator answered {len(completions)} of {len(requests)} requests")
    items = tuple(
        _judge(task, request, completion, tokenizer, verifier)
        for task, request, completion in zip(suite.tasks, requests, completions, strict=True)
    )
    return SuiteResult(suite.name, suite.version, suite.fingerprint, sampling, items)


def grouped(items: Sequence[Item], key: Callable[[Item], str]) -> Mapping[str, list[float]]:
    """Scores (1 right, 0 wrong) by group, groups in order of appearance."""
    groups: dict[str, list[float]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(float(item.ok))
    return groups


def plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _judge(task: Task, request: Request, completion: Completion, tokenizer: Tokenizer, verifier: Verifier) -> Item:
    verdict = verifier(task, parse_reply(tokenizer, completion.tokens))
    tokens = completion.tokens
    body = tokens[:-1] if tokens and tokens[-1] in request.sampling.stop_ids else tokens
    return Item(
        id=task.id,
        capability=task.capability,
        lang=task.lang,
        prompt=tokenizer.decode(request.prompt),
        target=tokenizer.decode(encode_content(tokenizer, task.answer)),
        reply=tokenizer.decode(body),
        ok=verdict.ok,
        reason=verdict.reason,
        finish=completion.finish,
        n_tokens=len(tokens),
        mean_logprob=sum(completion.logprobs) / len(tokens) if tokens else 0.0,
    )


def _seed(seed: int, task: Task) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{task.id}".encode()).digest()[:4])
