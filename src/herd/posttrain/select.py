"""From judged replies to training data: the best of k as dialogues, right against wrong as preference pairs.

Rejection sampling as in paper 4.2.2, and pairs for the reward model and DPO as in 4.2.1 and 4.1.4. Where the paper has
annotators compare two replies, an exact verifier does it here: chosen is right, rejected is wrong. Mixing with other
dialogues is here as well; training is not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from herd.errors import NoEffectError
from herd.posttrain.judge import best_first, pass_rate
from herd.posttrain.ledger import Drop, Ledger
from herd.posttrain.records import Accepted, Judged, Preference, Prompt
from herd.posttrain.settings import SelectSettings
from herd.posttrain.similarity import normalise, similarity

T = TypeVar("T")


def chance(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest(), "little") / 2.0**64


def best_of_k(
    good: Mapping[str, Sequence[Judged]],
    judged: Mapping[str, Sequence[Judged]],
    tasks: Mapping[str, Prompt],
    settings: SelectSettings,
    ledger: Ledger,
) -> list[Accepted]:
    """The best `keep_per_prompt` replies of each prompt as dialogues; easy prompts are thinned by difficulty.

    `good` holds the accepted replies that passed quality control, best first; `judged` all k, for the pass rate.
    Raises NoEffectError when nothing was accepted.
    """
    if not any(good.values()):
        raise nothing_accepted(judged, ledger)
    quality = _quality(good)
    accepted = []
    for task_id, replies in good.items():
        difficulty = 1.0 - pass_rate(judged[task_id])
        keep = max(settings.easy_floor, difficulty) ** settings.difficulty_weight
        for place, one in enumerate(replies):
            ledger.look("beyond the best")
            if place >= settings.keep_per_prompt:
                ledger.drop(Drop(task_id, one.candidate.index, "beyond the best", f"number {place + 1}", one.text))
                continue
            ledger.look("too easy")
            if chance(settings.seed, f"{task_id}\0easy") >= keep:
                ledger.drop(Drop(task_id, one.candidate.index, "too easy", f"kept with chance {keep:.2f}", one.text))
                continue
            accepted.append(_dialogue(tasks[task_id], one, quality[task_id, one.candidate.index], difficulty))
    return accepted


def nothing_accepted(judged: Mapping[str, Sequence[Judged]], ledger: Ledger) -> NoEffectError:
    """The error of a round without a single usable reply, with the most frequent reasons."""
    count = sum(map(len, judged.values()))
    right = sum(one.ruling == "correct" for group in judged.values() for one in group)
    reasons = [one.reason for group in judged.values() for one in group if one.reason]
    common = max(sorted(set(reasons)), key=reasons.count, default="no verdict")
    if right:
        rules = ", ".join(f"{rule} ({dropped})" for rule, dropped in ledger.dropped.most_common(3))
        return NoEffectError(
            f"quality control dropped all {right} correct replies among {count}: {rules}",
            mend="look at dropped.jsonl and loosen that rule in `quality`",
        )
    return NoEffectError(
        f"none of {count} replies to {len(judged)} prompts was accepted; mostly: {common}",
        mend="train the policy longer on seed dialogues, draw more replies (draw.k), or start with easier prompts",
    )


def pairs(
    good: Mapping[str, Sequence[Judged]],
    judged: Mapping[str, Sequence[Judged]],
    tasks: Mapping[str, Prompt],
    settings: SelectSettings,
    ledger: Ledger,
) -> list[Preference]:
    """Right against wrong for each prompt, at most `pairs_per_prompt`. All right or all wrong gives none.

    Rejected is first the wrong reply that the policy finds most probable: the mistake that it really makes. Prompts
    without a verifier pair their highest with their lowest reward, where these are `min_reward_gap` apart.
    """
    found = []
    for task_id, group in judged.items():
        for chosen, rejected in _pair_up(good.get(task_id, ()), group, settings):
            ledger.look("similar pair")
            alike = similarity(chosen.text, rejected.text)
            if alike >= settings.pair_similarity:
                reason = f"cosine {alike:.3f} with the chosen reply"
                ledger.drop(Drop(task_id, rejected.candidate.index, "similar pair", reason, rejected.text))
                continue
            found.append(Preference(task_id, tasks[task_id].messages, chosen.reply, rejected.reply))
    return found


def mix(parts: Sequence[tuple[Sequence[T], float]], seed: int) -> list[T]:
    """Several sources of dialogues, each as often as its number says (see `repeat`), one source after another."""
    return [one for number, (part, times) in enumerate(parts) for one in repeat(part, times, seed + number)]


def repeat(items: Sequence[T], times: float, seed: int) -> list[T]:
    """Every item floor(`times`) times, and the fractional share of them, chosen by hash, once more."""
    whole = math.floor(times)
    more = round((times - whole) * len(items))
    chosen = sorted(range(len(items)), key=lambda index: chance(seed, str(index)))[:more]
    return list(items) * whole + [items[index] for index in sorted(chosen)]


def _quality(good: Mapping[str, Sequence[Judged]]) -> dict[tuple[str, int], float]:
    """The reward of each reply as the share of scored replies that it reaches; 1.0 for replies without a score."""
    replies = [one for group in good.values() for one in group]
    rewards = sorted({one.reward for one in replies if one.reward is not None})
    share = {reward: (place + 1) / len(rewards) for place, reward in enumerate(rewards)}
    return {
        (one.candidate.task_id, one.candidate.index): 1.0 if one.reward is None else share[one.reward]
        for one in replies
    }


def _dialogue(task: Prompt, one: Judged, quality: float, difficulty: float) -> Accepted:
    return Accepted(
        task_id=task.id,
        capability=task.capability,
        lang=task.lang,
        messages=(*task.messages, one.reply),
        text=one.text,
        quality=quality,
        difficulty=difficulty,
    )


def _pair_up(good: Sequence[Judged], group: Sequence[Judged], settings: SelectSettings) -> list[tuple[Judged, Judged]]:
    right = [one for one in good if one.ruling == "correct"]
    wrong = [one for one in group if one.ruling == "wrong" and one.text]
    if not right and not wrong:
        return _by_reward(group, settings)
    lesser: dict[str, Judged] = {}
    for one in sorted(wrong, key=_most_tempting):
        lesser.setdefault(normalise(one.text), one)
    if not right:
        return []
    # With several right replies each takes its turn as the chosen one.
    return [
        (right[place % len(right)], one) for place, one in enumerate(list(lesser.values())[: settings.pairs_per_prompt])
    ]


def _most_tempting(one: Judged) -> tuple[bool, float, int]:
    # A reply without an end is improbable to its last token and shows no mistake; it is paired for want of better.
    return one.candidate.finish != "stop", -one.candidate.logprob, one.candidate.index


def _by_reward(group: Sequence[Judged], settings: SelectSettings) -> list[tuple[Judged, Judged]]:
    scored = sorted((one for one in group if one.reward is not None), key=best_first)
    if len(scored) < 2 or settings.pairs_per_prompt < 1:
        return []
    best, worst = scored[0], min(scored, key=lambda one: (one.reward or 0.0, one.candidate.index))
    gap = (best.reward or 0.0) - (worst.reward or 0.0)
    return [(best, worst)] if gap >= settings.min_reward_gap else []
