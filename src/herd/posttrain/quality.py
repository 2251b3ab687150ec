"""Quality control of what a round accepted (paper 4.2.3): rules on replies, duplicates, and the dialogues' variety.

    ledger = Ledger()
    good = clean(judged_by_task, tasks, settings, same_language, ledger)      # replies, before the best are chosen
    dialogues = distinct(dialogues, settings, ledger)                         # afterwards, over all prompts

Every reply that leaves has its rule and reason in the ledger. The rules see only replies that the judgement accepted:
what is wrong anyway is no loss, and wrong replies are wanted as the lesser halves of preference pairs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import numpy as np

from herd.posttrain.language import SameLanguage
from herd.posttrain.ledger import Drop, Ledger
from herd.posttrain.records import Accepted, Judged, Prompt
from herd.posttrain.rules import RULES
from herd.posttrain.settings import QualitySettings
from herd.posttrain.similarity import Rows, greedy_distinct, ngram_counts, normalise, unit_rows

Groups = dict[str, list[Judged]]  # task id -> its accepted replies, best first


def clean(
    accepted: Mapping[str, Sequence[Judged]],
    tasks: Mapping[str, Prompt],
    settings: QualitySettings,
    same_language: SameLanguage,
    ledger: Ledger,
) -> Groups:
    """Apply the rules and remove exact and near duplicates among the answers to one prompt.

    `accepted` holds each prompt's replies best first, so that of two duplicates the better one stays. Returns the same
    groups without what was dropped; a prompt that lost all its replies has an empty list.
    """

    def unfinished(judged: Judged) -> str | None:
        return f"cut off at {len(judged.candidate.tokens)} tokens" if judged.candidate.finish == "length" else None

    def malformed(judged: Judged) -> str | None:
        return judged.reply.problem or None

    def language(judged: Judged) -> str | None:
        # A tool call is JSON in any language; what surrounds it is too little to tell.
        wanted = tasks[judged.candidate.task_id].lang
        if judged.reply.tool_calls or same_language(judged.reply.content, wanted):
            return None
        return f"not in '{wanted}'"

    groups: Groups = {task_id: list(replies) for task_id, replies in accepted.items()}
    groups = _apply("unfinished", unfinished, groups, ledger)
    groups = _distinct_exact(groups, ledger)
    groups = _apply("malformed", malformed, groups, ledger)
    for name, rule in RULES.items():
        groups = _apply(name, lambda judged, rule=rule: rule(judged.text, settings), groups, ledger)  # type: ignore[misc]
    groups = _apply("language", language, groups, ledger)
    groups = _apply("length", _length_rule(groups, tasks, settings), groups, ledger)
    return {task_id: _distinct_near(task_id, replies, settings, ledger) for task_id, replies in groups.items()}


def distinct(accepted: Sequence[Accepted], settings: QualitySettings, ledger: Ledger) -> list[Accepted]:
    """Greedy semantic deduplication of whole dialogues (paper 4.2.3).

    Within a cluster (one capability and language, split by likeness when large) dialogues are taken by quality x
    difficulty, and kept while their greatest cosine with those kept is below the threshold. The order is kept.
    """
    unique = _without_exact(accepted, ledger)
    clusters: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, one in enumerate(unique):
        clusters[one.capability, one.lang].append(index)
    gone: set[int] = set()
    for members in clusters.values():
        rows = unit_rows(ngram_counts([_dialogue_text(unique[index]) for index in members]), rare_counts_more=True)
        for part in _split(rows, settings.cluster_size):
            order = sorted(range(len(part)), key=lambda place: _rank(unique[members[part[place]]]))
            blocked = greedy_distinct(rows[part], order, settings.semantic_duplicate)
            for place, other in enumerate(blocked):
                if other is not None:
                    index = members[part[place]]
                    gone.add(index)
                    ledger.drop(_drop(unique[index], "semantic duplicate", unique[members[part[other]]].task_id))
    ledger.look("semantic duplicate", len(unique))
    return [one for index, one in enumerate(unique) if index not in gone]


def _apply(rule: str, judge: Callable[[Judged], str | None], groups: Groups, ledger: Ledger) -> Groups:
    left: Groups = {}
    ledger.look(rule, sum(map(len, groups.values())))
    for task_id, replies in groups.items():
        left[task_id] = []
        for judged in replies:
            reason = judge(judged)
            if reason is None:
                left[task_id].append(judged)
            else:
                ledger.drop(Drop(task_id, judged.candidate.index, rule, reason, judged.text))
    return left


def _length_rule(
    groups: Groups, tasks: Mapping[str, Prompt], settings: QualitySettings
) -> Callable[[Judged], str | None]:
    """Outliers of log length among replies of one kind, by median and median absolute deviation."""

    def kind_of(judged: Judged) -> tuple[str, str, str]:
        task = tasks[judged.candidate.task_id]
        return task.capability, task.lang, "calls" if judged.reply.tool_calls else "text"

    lengths: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for replies in groups.values():
        for judged in replies:
            lengths[kind_of(judged)].append(math.log(len(judged.text) + 1))
    centre = {kind: median(values) for kind, values in lengths.items()}
    # 1.4826 makes the deviation that of a normal distribution. Replies of nearly one length would have a deviation
    # near 0 and call every other reply an outlier: with this floor it takes a factor of 16 at the default threshold.
    spread = {
        kind: max(1.4826 * median(abs(value - centre[kind]) for value in values), 0.35)
        for kind, values in lengths.items()
    }

    def rule(judged: Judged) -> str | None:
        kind = kind_of(judged)
        if len(lengths[kind]) < settings.length_minimum:
            return None
        away = (math.log(len(judged.text) + 1) - centre[kind]) / spread[kind]
        if abs(away) <= settings.length_deviations:
            return None
        return f"{len(judged.text)} characters, {away:+.1f} deviations from what is usual in {' '.join(kind)}"

    return rule


def _distinct_exact(groups: Groups, ledger: Ledger) -> Groups:
    """One reply of each wording to a prompt, the first; a good policy says the same thing most of the k times."""
    left: Groups = {}
    for task_id, replies in groups.items():
        first_of: dict[str, Judged] = {}
        for judged in replies:
            ledger.look("exact duplicate")
            first = first_of.setdefault(normalise(judged.text), judged)
            if first is not judged:
                reason = f"same as reply {first.candidate.index}"
                ledger.drop(Drop(task_id, judged.candidate.index, "exact duplicate", reason, judged.text))
        left[task_id] = list(first_of.values())
    return left


def _distinct_near(task_id: str, replies: list[Judged], settings: QualitySettings, ledger: Ledger) -> list[Judged]:
    ledger.look("near duplicate", len(replies))
    if len(replies) < 2:
        return replies
    rows = unit_rows(ngram_counts([judged.text for judged in replies]))
    blocked = greedy_distinct(rows, range(len(replies)), settings.near_duplicate)
    for judged, other in zip(replies, blocked, strict=True):
        if other is not None:
            reason = f"close to reply {replies[other].candidate.index}"
            ledger.drop(Drop(task_id, judged.candidate.index, "near duplicate", reason, judged.text))
    return [judged for judged, other in zip(replies, blocked, strict=True) if other is None]


def _without_exact(accepted: Iterable[Accepted], ledger: Ledger) -> list[Accepted]:
    """Dialogues that are equal word for word, whichever prompt ids they came from; the best of them stays."""
    best: dict[str, Accepted] = {}
    for one in accepted:
        ledger.look("equal dialogue")
        text = _dialogue_text(one)
        known = best.get(text)
        if known is None:
            best[text] = one
            continue
        worse, better = (known, one) if _rank(one) < _rank(known) else (one, known)
        best[text] = better
        ledger.drop(_drop(worse, "equal dialogue", better.task_id))
    return list(best.values())


def _rank(one: Accepted) -> tuple[float, float, str]:
    """Best first: quality x difficulty, then quality, then the id, so that equal scores have one order."""
    return -one.quality * one.difficulty, -one.quality, one.task_id


def _drop(one: Accepted, rule: str, other: str) -> Drop:
    return Drop(one.task_id, -1, rule, f"like the dialogue of {other}", one.text)


def _dialogue_text(one: Accepted) -> str:
    return normalise(" ".join(f"{message.role}: {message.content}" for message in one.messages[:-1]) + " " + one.text)


def _split(rows: Rows, size: int) -> list[list[int]]:
    """Parts of at most `size` rows that keep like rows together: halves along the widest direction of spread."""
    parts: list[list[int]] = []
    waiting = [list(range(len(rows)))]
    while waiting:
        members = waiting.pop()
        if len(members) <= size:
            parts.append(members)
            continue
        part = rows[members]
        direction = part[0] - part[int(np.argmin(part @ part[0]))]  # towards the row least like the first
        order = np.argsort(part @ direction, kind="stable")
        half = len(members) // 2
        waiting += [[members[place] for place in order[:half]], [members[place] for place in order[half:]]]
    return parts
