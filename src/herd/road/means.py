"""What the post-training stages share: models with their tokenizer, the engine, scores on a suite."""

from __future__ import annotations

from collections.abc import Sequence

from herd.evaluate.suite import Suite, SuiteResult, run_suite
from herd.generate.engine import Engine
from herd.generate.protocol import Sampling
from herd.llama.model import Llama
from herd.paddock import Task, verify
from herd.posttrain.collect import Means
from herd.posttrain.finish import Evaluate, Scores
from herd.progress import Progress, Silent
from herd.recipe import SuiteSettings
from herd.text import Tokenizer
from herd.text.message import Message

SUITE = "paddock"
CONVERSATION = "paddock-conversation"  # the probe of turns two and three; no part of the suite's average
SUITE_VERSION = "2"  # raise it when tasks or checks change: scores of two versions do not compare


def means(tokenizer: Tokenizer, settings: SuiteSettings) -> Means:
    """The paddock's verifier and the embedded engine."""
    return Means(tokenizer, verify, lambda model: Engine(model, batch_size=settings.batch_size))


def scores(
    model: Llama,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    settings: SuiteSettings,
    name: str = SUITE,
    progress: Progress = Silent(),  # noqa: B008  (it holds nothing)
) -> SuiteResult:
    """Greedy replies to every task, judged."""
    model.eval()
    sampling = Sampling(temperature=0.0, max_tokens=settings.max_tokens, stop_ids=tokenizer.stop_ids)
    engine = Engine(model, batch_size=settings.batch_size)
    return run_suite(engine, tokenizer, Suite(name, SUITE_VERSION, tuple(tasks)), sampling, progress=progress)


def evaluator(tokenizer: Tokenizer, tasks: Sequence[Task], settings: SuiteSettings) -> Evaluate:
    """Scores on the split that is kept for choosing between models."""

    def evaluate(model: Llama) -> Scores:
        result = scores(model, tokenizer, tasks, settings)
        return Scores(result.average.value, {name: one.value for name, one in result.by_capability().items()})

    return evaluate


def dialogues(tasks: Sequence[Task]) -> list[tuple[Message, ...]]:
    return [task.dialogue() for task in tasks]
