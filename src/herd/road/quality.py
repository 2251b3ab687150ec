"""FP8 beside BF16 as one value of plain parts: what both predict on a text, score on a suite, are worth to a reward
model. The stage `fp8-check` and `herd quantize --check` measure here; `summary/fp8.py` shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from herd.evaluate.compare import compare
from herd.evaluate.statistics import distribution_shift, wilson
from herd.evaluate.suite import SuiteResult, plain
from herd.llama.model import Llama
from herd.paddock import Task
from herd.posttrain.training import reward_scorer
from herd.progress import Progress
from herd.quantize.quality import differences, worst
from herd.quantize.reading import Passage, grouped
from herd.text import Tokenizer, encode_dialogue, parse_text
from herd.train.reward_files import load_reward

_BATCH_TOKENS = 8192  # that a reward model reads at once
Check = dict[str, Any]


def answers(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[Passage]:
    """Right answers to tasks: what the assistant says counts."""
    dialogues = (encode_dialogue(tokenizer, task.dialogue()) for task in tasks)
    return [Passage(tuple(one.ids), tuple(one.trained)) for one in dialogues]


def predictions(
    models: tuple[Callable[[], Llama], Callable[[], Llama]],
    passages: Sequence[Passage],
    decode: Callable[[list[int]], str],
    text: str,
    scratch: Path,
    progress: Progress,
) -> Check:
    """Divergence, agreement, perplexity of (BF16, FP8) on `passages`, which `text` names, and the worst places."""
    groups = grouped(passages)
    seen = differences(*models, groups, scratch, progress)
    return {
        "text": text,
        **seen.figures(),
        "agreement": plain(wilson(seen.alike, len(seen.kl_C))),
        "divergences": seen.divergences(),
        "worst": [one.as_json() for one in worst(seen, groups, decode)],
    }


def suite(first: SuiteResult, second: SuiteResult) -> Check:
    """The scores of both, paired item by item."""
    return {"suite": compare(first, second)}


def rewards(
    results: tuple[SuiteResult, SuiteResult],
    tasks: Sequence[Task],
    reward: Path,
    tokenizer: Tokenizer,
    device: str,
    progress: Progress,
) -> Check:
    """Reward scores of both models' own replies to the same prompts, and how far the distributions lie apart.

    The paper compares these because benchmarks missed the damage of an unbounded scale (section 6.2).
    """
    scorer = reward_scorer(load_reward(reward, device), tokenizer, _BATCH_TOKENS, progress)
    drawn = []
    for result in results:
        replies = [parse_text(item.reply) for item in result.items]
        drawn.append(scorer([(*task.messages, reply) for task, reply in zip(tasks, replies, strict=True)]))
    shift = distribution_shift(*drawn)
    return {"rewards_bf16": list(drawn[0]), "rewards_fp8": list(drawn[1]), "shift": asdict(shift)}
