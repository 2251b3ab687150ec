"""Multiple choice by likelihood: which continuation does the model find likeliest? (acc and acc_norm)

Used where a benchmark is defined so (ARC, commonsense) and for the downstream forecast, which needs the likelihood of
the right answer. `acc` compares the log-likelihoods, `acc_norm` divides them by the answer's bytes in UTF-8 first, so
that long answers are not punished. Any model can be the `Scorer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from herd.errors import InputError
from herd.generate.protocol import SILENT
from herd.progress import Progress
from herd.text.tokenizer import Tokenizer


class Scorer(Protocol):
    def loglikelihood(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> float:
        """Sum of the natural log-probabilities of the continuation's tokens after the prompt."""


@dataclass(frozen=True)
class Question:
    """`prompt` as ids, begin-of-text and all. The choices are continued as they stand: lead with a space if due."""

    prompt: tuple[int, ...]
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or not all(self.choices) or not 0 <= self.answer < len(self.choices):
            raise InputError(f"not a multiple-choice question: {len(self.choices)} choices, answer {self.answer}")


@dataclass(frozen=True)
class Choice:
    """How one question went. `nll_per_character` is of the right answer (Llama 3, section 3.2.1)."""

    loglikelihoods: tuple[float, ...]
    picked: int
    picked_norm: int
    acc: bool
    acc_norm: bool
    nll_per_character: float


def score_choices(
    scorer: Scorer,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    progress: Progress = SILENT,
) -> list[Choice]:
    """Score every question; ties go to the earlier choice. Raises InputError on a likelihood that is no number."""
    results = []
    for number, question in enumerate(questions):
        found = tuple(scorer.loglikelihood(question.prompt, tokenizer.encode(text)) for text in question.choices)
        if any(math.isnan(value) for value in found):
            raise InputError(f"the likelihood of a choice of question {number} is not a number")
        results.append(_choice(question, found))
        progress.update(number + 1, len(questions), "questions")
    return results


def _choice(question: Question, found: tuple[float, ...]) -> Choice:
    per_byte = [value / len(text.encode()) for value, text in zip(found, question.choices, strict=True)]
    picked, picked_norm = found.index(max(found)), per_byte.index(max(per_byte))
    return Choice(
        loglikelihoods=found,
        picked=picked,
        picked_norm=picked_norm,
        acc=picked == question.answer,
        acc_norm=picked_norm == question.answer,
        nll_per_character=-found[question.answer] / len(question.choices[question.answer]),
    )
