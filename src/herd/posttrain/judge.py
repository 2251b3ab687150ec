"""Judgement of candidates: exact verifiers first, the reward model among what they cannot tell apart.

    judgement = judge(candidates, tasks, tokenizer, verify, scorer, settings)
    judgement.accepted            # task id -> accepted replies, best first
    judgement.report              # acceptance by capability and language, agreement of reward and verifier

A reply that its verifier calls wrong is never accepted, whatever its reward. Among correct replies the reward decides;
without a reward model, the policy's own probability. Replies that no verifier can judge are accepted when their
reward lies in the top quartile of such replies (paper 4.2.3), and not at all without a reward model.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from herd.posttrain.candidates import Candidates
from herd.posttrain.records import Candidate, Judged, Prompt, Ruling
from herd.posttrain.settings import JudgeSettings
from herd.progress import Progress, Silent
from herd.text.chat import parse_reply
from herd.text.message import Message
from herd.text.tokenizer import Tokenizer


class Verdict(Protocol):
    """What a verifier returns; `paddock.Verdict` is one."""

    @property
    def ok(self) -> bool: ...
    @property
    def reason(self) -> str: ...


class Verifier(Protocol):
    """An exact check of a reply. None: this task has no exact check. `paddock.verify` is one."""

    def __call__(self, task: Any, reply: Message, /) -> Verdict | None: ...


# Conversations that end with the reply to score -> one score each, as a log odds of being preferred.
Scorer = Callable[[Sequence[Sequence[Message]]], Sequence[float]]

Group = tuple[Judged, ...]


@dataclass(frozen=True)
class Judgement:
    """All replies with their rulings, by task id, and the accepted ones, best first."""

    judged: Mapping[str, Group]
    accepted: Mapping[str, Group]
    report: Mapping[str, Any]


def judge(
    candidates: Candidates,
    tasks: Mapping[str, Prompt],
    tokenizer: Tokenizer,
    verify: Verifier,
    scorer: Scorer | None,
    settings: JudgeSettings,
    *,
    progress: Progress | None = None,
) -> Judgement:
    """Rule on every candidate, and score those between which the reward model has to choose.

    `scorer` None means that there is no reward model yet. Only the needed scores are computed: prompts with two or
    more different correct replies, unverifiable prompts, and a sample of prompts on which both judges are compared.
    """
    progress = progress or Silent()
    judged: dict[str, Group] = {}
    done = 0
    for task_id, group in candidates.by_task():
        judged[task_id] = _rule(tasks[task_id], group, tokenizer, verify)
        done += len(group)
        if done % 4096 < candidates.k:
            progress.update(done, len(candidates), "verdicts")
    if scorer is not None:
        judged = _score(judged, tasks, scorer, settings)
    return conclude(judged, tasks, settings)


def conclude(judged: Mapping[str, Group], tasks: Mapping[str, Prompt], settings: JudgeSettings) -> Judgement:
    """What follows from the rulings and scores: the accepted replies and the report."""
    bar = _bar([one.reward for group in judged.values() for one in group if one.ruling == "unverified"], settings)
    accepted = {
        task_id: tuple(sorted((one for one in group if _is_accepted(one, bar)), key=best_first))
        for task_id, group in judged.items()
    }
    return Judgement(judged, accepted, _report(judged, accepted, tasks))


def best_first(judged: Judged) -> tuple[bool, bool, float, float, int]:
    """Sort key within a prompt: verified before unverified, finished before cut off, then reward, then probability."""
    reward = judged.reward if judged.reward is not None else 0.0
    candidate = judged.candidate
    return judged.ruling != "correct", candidate.finish != "stop", -reward, -candidate.logprob, candidate.index


def pass_rate(group: Sequence[Judged]) -> float:
    """Share of a prompt's replies that are correct, among those that could be verified; 0.5 where none could."""
    verified = [one for one in group if one.ruling != "unverified"]
    return sum(one.ruling == "correct" for one in verified) / len(verified) if verified else 0.5


def _rule(task: Prompt, group: Sequence[Candidate], tokenizer: Tokenizer, verify: Verifier) -> Group:
    """Parse and verify one prompt's replies; equal replies are verified once."""
    known: dict[tuple[int, ...], tuple[Message, Ruling, str]] = {}
    for candidate in group:
        if candidate.tokens not in known:
            reply = parse_reply(tokenizer, candidate.tokens)
            verdict = verify(task, reply)
            ruling: Ruling = "unverified" if verdict is None else "correct" if verdict.ok else "wrong"
            known[candidate.tokens] = reply, ruling, verdict.reason if verdict else ""
    return tuple(Judged(candidate, *known[candidate.tokens]) for candidate in group)


def _score(
    judged: Mapping[str, Group], tasks: Mapping[str, Prompt], scorer: Scorer, settings: JudgeSettings
) -> dict[str, Group]:
    """Score what has to be scored, each wording of a reply once."""
    compared = _compared(judged, settings.agreement_prompts)
    places: dict[tuple[str, str], int] = {}
    conversations: list[Sequence[Message]] = []
    for task_id, group in judged.items():
        wanted = group if task_id in compared else _undecided(group)
        for one in wanted:
            if (task_id, one.text) not in places:
                places[task_id, one.text] = len(conversations)
                conversations.append((*tasks[task_id].messages, one.reply))
    scores = scorer(conversations) if conversations else ()
    return {
        task_id: tuple(
            one.with_reward(float(scores[places[task_id, one.text]])) if (task_id, one.text) in places else one
            for one in group
        )
        for task_id, group in judged.items()
    }


def _undecided(group: Group) -> Group:
    """The replies among which the verifier leaves a choice."""
    unverified = tuple(one for one in group if one.ruling == "unverified")
    correct = tuple(one for one in group if one.ruling == "correct")
    return unverified + (correct if len({one.text for one in correct}) > 1 else ())


def _compared(judged: Mapping[str, Group], count: int) -> set[str]:
    """Prompts with right and wrong replies on which reward and verifier are compared, chosen by hash."""
    mixed = [task_id for task_id, group in judged.items() if {"correct", "wrong"} <= {one.ruling for one in group}]
    return set(sorted(mixed, key=lambda task_id: hashlib.blake2b(task_id.encode()).digest())[:count])


def _bar(rewards: Iterable[float | None], settings: JudgeSettings) -> float | None:
    """The reward from which an unverifiable reply is accepted; None when there is nothing to go by."""
    known = [reward for reward in rewards if reward is not None]
    return float(np.quantile(known, settings.accept_quantile)) if known else None


def _is_accepted(one: Judged, bar: float | None) -> bool:
    if one.ruling == "unverified":
        return one.reward is not None and bar is not None and one.reward >= bar
    return one.ruling == "correct"


def _report(judged: Mapping[str, Group], accepted: Mapping[str, Group], tasks: Mapping[str, Prompt]) -> dict[str, Any]:
    rulings = Counter(one.ruling for group in judged.values() for one in group)
    return {
        "prompts": len(judged),
        "candidates": sum(map(len, judged.values())),
        "rulings": {ruling: rulings[ruling] for ruling in ("correct", "wrong", "unverified")},
        "accepted": sum(map(len, accepted.values())),
        "solved_prompts": sum(bool(group) for group in accepted.values()),
        "by_capability": _acceptance(judged, accepted, lambda task_id: tasks[task_id].capability),
        "by_lang": _acceptance(judged, accepted, lambda task_id: tasks[task_id].lang),
        "wrong_because": dict(
            Counter(one.reason for group in judged.values() for one in group if one.ruling == "wrong").most_common(12)
        ),
        "reward": agreement(judged.values()),
    }


def _acceptance(
    judged: Mapping[str, Group], accepted: Mapping[str, Group], kind: Callable[[str], str]
) -> dict[str, dict[str, float]]:
    """Candidates, accepted ones, their share, and prompts with at least one, by what `kind` says of a task id."""
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for task_id, group in judged.items():
        row = table[kind(task_id)]
        row.update(prompts=1, candidates=len(group), accepted=len(accepted[task_id]), solved=bool(accepted[task_id]))
    return {name: {**row, "acceptance": row["accepted"] / row["candidates"]} for name, row in sorted(table.items())}


def agreement(groups: Iterable[Sequence[Judged]]) -> dict[str, float]:
    """How far reward and verifier agree, on replies that have both. Empty when there are none.

    `auc`: the chance that a correct reply outscores a wrong one, over all prompts. `pair_accuracy`: the same within
    prompts, which is what choosing among k replies needs. Equal scores count half.
    """
    right: list[float] = []
    wrong: list[float] = []
    within = pairs = 0.0
    for group in groups:
        good = [one.reward for one in group if one.ruling == "correct" and one.reward is not None]
        bad = [one.reward for one in group if one.ruling == "wrong" and one.reward is not None]
        if good and bad:  # a prompt scored only on one side says nothing, and would bias the other figure
            right += good
            wrong += bad
            within += _wins(good, bad)
            pairs += len(good) * len(bad)
    if not pairs:
        return {}
    auc = _wins(right, wrong) / (len(right) * len(wrong))
    return {"auc": auc, "pair_accuracy": within / pairs, "correct": len(right), "wrong": len(wrong)}


def _wins(good: Sequence[float], bad: Sequence[float]) -> float:
    """How many of the good x bad pairs the good one wins, ties counting half."""
    ordered = np.sort(np.asarray(bad))
    below = np.searchsorted(ordered, good, side="left")
    up_to = np.searchsorted(ordered, good, side="right")
    return float(np.sum(below + up_to) / 2)
