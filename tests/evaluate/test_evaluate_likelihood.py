"""Multiple choice by likelihood, with a scorer whose numbers are written down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from evaluate_herd import tokenizer

from herd.errors import InputError
from herd.evaluate.likelihood import Question, score_choices

TOKENIZER = tokenizer()


class Table:
    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def loglikelihood(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> float:
        assert list(prompt_ids) == [TOKENIZER.bos, 7]
        return self.scores[TOKENIZER.decode(continuation_ids)]


def question(choices: tuple[str, ...], answer: int) -> Question:
    return Question((TOKENIZER.bos, 7), choices, answer)


def test_acc_and_acc_norm_can_disagree() -> None:
    """The long answer loses in sum (-6 to -4) and wins a byte (-0.5 to -1)."""
    found = score_choices(
        Table({" yes": -4.0, " of course!!": -6.0}), TOKENIZER, [question((" yes", " of course!!"), 1)]
    )
    assert (found[0].picked, found[0].picked_norm) == (0, 1)
    assert (found[0].acc, found[0].acc_norm) == (False, True)
    assert found[0].nll_per_character == pytest.approx(6.0 / 12)


def test_bytes_count_for_acc_norm_and_characters_for_the_forecast() -> None:
    """Thai takes three bytes a character: five characters, fifteen bytes."""
    found = score_choices(Table({"ปารีส": -15.0, "Paris": -6.0}), TOKENIZER, [question(("ปารีส", "Paris"), 0)])
    assert found[0].picked == 1
    assert found[0].picked_norm == 0
    assert found[0].nll_per_character == pytest.approx(3.0)


def test_ties_go_to_the_earlier_choice_and_minus_infinity_is_a_likelihood() -> None:
    found = score_choices(Table({"a": -1.0, "b": -1.0, "c": -math.inf}), TOKENIZER, [question(("a", "b", "c"), 0)])
    assert found[0].picked == 0


def test_bad_questions_and_scores_are_refused() -> None:
    for choices, answer in (((), 0), (("a",), 0), (("a", "b"), 2), (("a", ""), 0)):
        with pytest.raises(InputError, match="not a multiple-choice question"):
            question(choices, answer)
    with pytest.raises(InputError, match="question 0"):
        score_choices(Table({"a": math.nan, "b": 0.0}), TOKENIZER, [question(("a", "b"), 0)])
