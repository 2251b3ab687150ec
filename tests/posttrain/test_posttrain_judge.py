"""Judgement: the verifier is never overruled, the reward model is asked only where it decides, agreement is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posttrain_fakes import Scripted, Sum, Verdict, bytes_tokenizer, judged, sums, verify

from herd.posttrain.candidates import Candidates, draw
from herd.posttrain.judge import agreement, conclude, judge, pass_rate
from herd.posttrain.records import Judged, judged_from_row, judged_to_row
from herd.posttrain.settings import DrawSettings, JudgeSettings
from herd.text.message import Message

K = 4


def candidates_of(tasks: Sequence[Sum], folder: Path) -> Candidates:
    """For task n: right answers for a share of the seeds, in two wordings."""
    answers = {f"What is {n} and {n + 3}?": task.right for n, task in enumerate(tasks)}

    def reply(prompt: str, seed: int) -> str:
        right = next(answer for question, answer in answers.items() if question in prompt)
        return [right, "It is 0.", "It is 0.", "It is 9999."][seed % 4]

    return draw(Scripted(reply), bytes_tokenizer(), tasks, DrawSettings(k=K, max_tokens=40), folder)


class CountingScorer:
    """Scores by length, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        self.asked += [messages[-1].content for messages in conversations]
        return [float(len(messages[-1].content)) for messages in conversations]


def test_rulings_follow_the_verifier_whatever_the_reward(tmp_path: Path) -> None:
    tasks = sums(12)
    by_id = {task.id: task for task in tasks}
    drawn = candidates_of(tasks, tmp_path)
    judgement = judge(drawn, by_id, bytes_tokenizer(), verify, CountingScorer(), JudgeSettings())
    for task_id, group in judgement.judged.items():
        for one in group:
            assert (one.ruling == "correct") == (one.text == by_id[task_id].right)
        assert all(one.ruling == "correct" for one in judgement.accepted[task_id])
    right = sum(one.text == by_id[one.task_id].right for one in drawn.all)
    report = judgement.report
    assert report["rulings"] == {"correct": right, "wrong": 48 - right, "unverified": 0}
    assert report["by_capability"]["math"]["acceptance"] == pytest.approx(right / 48)
    assert report["wrong_because"] == {"another number": 48 - right}


def test_equal_replies_are_verified_and_scored_once(tmp_path: Path) -> None:
    tasks = sums(6)
    calls: list[tuple[str, str]] = []

    def counting(task: Sum, reply: Message) -> Verdict | None:
        calls.append((task.id, reply.content))
        return verify(task, reply)

    scorer = CountingScorer()
    drawn = candidates_of(tasks, tmp_path)
    judge(drawn, {task.id: task for task in tasks}, bytes_tokenizer(), counting, scorer, JudgeSettings())
    assert len(calls) == len(set(calls)) == len({(one.task_id, one.text) for one in drawn.all})
    assert len(scorer.asked) <= len(calls)


def test_without_agreement_sample_a_decided_prompt_costs_no_score(tmp_path: Path) -> None:
    tasks, scorer = sums(6), CountingScorer()
    settings = JudgeSettings(agreement_prompts=0)
    by_id = {task.id: task for task in tasks}
    judge(candidates_of(tasks, tmp_path), by_id, bytes_tokenizer(), verify, scorer, settings)
    assert scorer.asked == []  # each prompt has one right wording at most


def test_the_reward_decides_among_the_correct_and_probability_without_one() -> None:
    task = Sum("math/0", (Message("user", "?"),), "x")
    group = (
        judged("a", index=0, reward=0.1, logprob=-1.0),
        judged("b", index=1, reward=0.9, logprob=-9.0),
        judged("c", "wrong", index=2, reward=5.0),
    )
    by_reward = conclude({task.id: group}, {task.id: task}, JudgeSettings())
    assert [one.text for one in by_reward.accepted[task.id]] == ["b", "a"]
    without = tuple(one.with_reward(None) for one in group)
    by_probability = conclude({task.id: without}, {task.id: task}, JudgeSettings())
    assert [one.text for one in by_probability.accepted[task.id]] == ["a", "b"]


def test_the_unverifiable_are_accepted_in_the_top_quartile_or_not_at_all() -> None:
    tasks = {f"t{n}": Sum(f"t{n}", (Message("user", "?"),), "") for n in range(100)}
    groups = {name: (judged("x", "unverified", task_id=name, reward=float(n)),) for n, name in enumerate(tasks)}
    accepted = conclude(groups, tasks, JudgeSettings()).accepted
    assert [name for name, group in accepted.items() if group] == [f"t{n}" for n in range(75, 100)]
    blind = {name: tuple(one.with_reward(None) for one in group) for name, group in groups.items()}
    assert not any(conclude(blind, tasks, JudgeSettings()).accepted.values())


REWARDS = st.lists(st.integers(-3, 3), min_size=1, max_size=6)


@given(st.lists(st.tuples(REWARDS, REWARDS), min_size=1, max_size=5))
def test_agreement_equals_counting_all_pairs(prompts: list[tuple[list[int], list[int]]]) -> None:
    groups = [
        [judged("g", reward=float(x)) for x in good] + [judged("b", "wrong", reward=float(x)) for x in bad]
        for good, bad in prompts
    ]
    groups.append([judged("lone", reward=9.0)])  # a prompt without its counterpart says nothing

    def wins(pairs: list[tuple[int, int]]) -> float:
        return sum((g > b) + 0.5 * (g == b) for g, b in pairs) / len(pairs)

    within = [(g, b) for good, bad in prompts for g in good for b in bad]
    across = [(g, b) for good, _ in prompts for g in good for _, bad in prompts for b in bad]
    found = agreement(groups)
    assert found["pair_accuracy"] == pytest.approx(wins(within))
    assert found["auc"] == pytest.approx(wins(across))


def test_agreement_without_pairs_is_empty() -> None:
    assert agreement([[judged("a", reward=1.0)], [judged("b", "wrong")]]) == {}


def test_pass_rate_counts_what_could_be_verified() -> None:
    group = [judged("a"), judged("b", "wrong"), judged("c", "wrong"), judged("d", "unverified")]
    assert pass_rate(group) == pytest.approx(1 / 3)
    assert pass_rate(group[3:]) == 0.5


def test_a_judgement_survives_its_file() -> None:
    one: Judged = judged("It is 3.", "wrong", reward=0.25)
    assert judged_from_row(judged_to_row(one), one.candidate) == one
    assert judged_from_row(judged_to_row(replace(one, reward=None)), one.candidate).reward is None
