"""Selection: the best of k, pairs of right against wrong, mixes in exact counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_fakes import Sum, judged

from herd.errors import FormatError, NoEffectError
from herd.posttrain.judge import conclude
from herd.posttrain.ledger import Ledger
from herd.posttrain.records import (
    Judged,
    Preference,
    read_accepted,
    read_preferences,
    write_accepted,
    write_preferences,
)
from herd.posttrain.select import best_of_k, mix, pairs, repeat
from herd.posttrain.settings import JudgeSettings, SelectSettings
from herd.text.message import Message, ToolCall

ALL = SelectSettings(difficulty_weight=0.0, pair_similarity=1.0)
REPLIES = st.lists(
    st.tuples(
        st.sampled_from(["It is 7.", "It is 8.", "Seven, I think.", "9", "It is 70, as 7 times 10 is 70."]),
        st.booleans(),
        st.floats(-9, -0.1),
        st.sampled_from(["stop", "length"]),
    ),
    min_size=1,
    max_size=8,
)


def tasks_of(names: list[str]) -> dict[str, Sum]:
    return {name: Sum(name, (Message("user", f"Question {name}?"),), "x") for name in names}


def group_of(name: str, replies: list[tuple[str, bool, float, str]]) -> tuple[Judged, ...]:
    """Equal texts are ruled equally, as a verifier would: by the first that has the text."""
    rulings: dict[str, bool] = {}
    return tuple(
        judged(
            text,
            "correct" if rulings.setdefault(text, ok) else "wrong",
            task_id=name,
            index=index,
            logprob=logprob,
            finish=finish,
        )
        for index, (text, ok, logprob, finish) in enumerate(replies)
    )


@given(st.lists(REPLIES, min_size=1, max_size=6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_pairs_set_right_against_wrong_within_a_prompt(prompts: list[list], most: int) -> None:  # type: ignore[type-arg]
    names = [f"t{n}" for n in range(len(prompts))]
    tasks = tasks_of(names)
    groups = {name: group_of(name, replies) for name, replies in zip(names, prompts, strict=True)}
    good = conclude(groups, tasks, JudgeSettings()).accepted
    found = pairs(good, groups, tasks, replace(ALL, pairs_per_prompt=most), Ledger())
    for pair in found:
        group = groups[pair.task_id]
        assert pair.prompt == tasks[pair.task_id].messages
        assert pair.chosen in [one.reply for one in group if one.ruling == "correct"]
        assert pair.rejected in [one.reply for one in group if one.ruling == "wrong"]
    for name, group in groups.items():
        mine = [pair for pair in found if pair.task_id == name]
        wrong = {one.text for one in group if one.ruling == "wrong"}
        mixed = bool(wrong) and any(one.ruling == "correct" for one in group)
        assert len(mine) == (min(most, len(wrong)) if mixed else 0)
        assert len({pair.rejected.content for pair in mine}) == len(mine)
        if mine:
            finished = [one for one in group if one.ruling == "wrong" and one.candidate.finish == "stop"]
            pool = finished or [one for one in group if one.ruling == "wrong"]
            top = max(one.candidate.logprob for one in pool)
            assert mine[0].rejected.content in {one.text for one in pool if one.candidate.logprob == top}


def test_pairs_that_hardly_differ_are_dropped_and_counted() -> None:
    long = (
        "The sum of the numbers from one to nine is forty-five, as each pair of the ends makes ten, and five is left."
    )
    group = (judged(long), judged(long + ".", "wrong", index=1))
    ledger = Ledger()
    tasks = tasks_of(["math/0"])
    assert pairs({"math/0": group[:1]}, {"math/0": group}, tasks, replace(ALL, pair_similarity=0.95), ledger) == []
    assert ledger.dropped == {"similar pair": 1}


def test_without_a_verifier_the_rewards_make_the_pair_if_they_are_far_apart() -> None:
    group = tuple(
        judged(text, "unverified", index=n, reward=reward)
        for n, (text, reward) in enumerate([("fair", 0.2), ("good", 2.0), ("poor", -1.0)])
    )
    tasks = tasks_of(["math/0"])
    (pair,) = pairs({}, {"math/0": group}, tasks, ALL, Ledger())
    assert (pair.chosen.content, pair.rejected.content) == ("good", "poor")
    assert pairs({}, {"math/0": group}, tasks, replace(ALL, min_reward_gap=3.5), Ledger()) == []


def test_the_best_of_each_prompt_is_kept_with_its_quality_and_difficulty() -> None:
    groups = {
        "t0": (judged("low", task_id="t0", reward=0.0), judged("high", task_id="t0", index=1, reward=3.0)),
        "t1": (judged("mid", task_id="t1", reward=1.0), judged("bad", "wrong", task_id="t1", index=1)),
        "t2": (judged("bad", "wrong", task_id="t2"),),
    }
    tasks = tasks_of(list(groups))
    good = conclude(groups, tasks, JudgeSettings()).accepted
    ledger = Ledger()
    kept = best_of_k(good, groups, tasks, ALL, ledger)
    assert [(one.task_id, one.text, one.difficulty) for one in kept] == [("t0", "high", 0.0), ("t1", "mid", 0.5)]
    assert kept[0].quality == 1.0 > kept[1].quality
    assert kept[0].messages == (*tasks["t0"].messages, Message("assistant", "high"))
    assert ledger.dropped == {"beyond the best": 1}


def test_easy_prompts_are_thinned_and_hard_ones_stay() -> None:
    groups = {}
    for n in range(600):
        name = f"t{n}"
        rate = 8 if n < 300 else 1
        groups[name] = tuple(
            judged(f"r{k}", "correct" if k < rate else "wrong", task_id=name, index=k) for k in range(8)
        )
    tasks = tasks_of(list(groups))
    good = conclude(groups, tasks, JudgeSettings()).accepted
    settings = SelectSettings(difficulty_weight=1.0, easy_floor=0.2)
    kept = best_of_k(good, groups, tasks, settings, Ledger())
    easy = sum(one.difficulty == 0.0 for one in kept)
    assert 0.12 < easy / 300 < 0.28  # a chance of 0.2 each
    assert 0.82 < (len(kept) - easy) / 300 < 0.93  # and of 7/8
    assert best_of_k(good, groups, tasks, settings, Ledger()) == kept


def test_nothing_accepted_says_what_to_do() -> None:
    groups = {"t0": (judged("a", "wrong", task_id="t0"), judged("b", "wrong", task_id="t0", index=1))}
    with pytest.raises(NoEffectError, match="none of 2 replies to 1 prompts") as caught:
        best_of_k({"t0": ()}, groups, tasks_of(["t0"]), ALL, Ledger())
    assert "seed dialogues" in caught.value.mend
    right = {"t0": (judged("a", task_id="t0"),)}
    with pytest.raises(NoEffectError, match="quality control dropped all 1"):
        best_of_k({"t0": ()}, right, tasks_of(["t0"]), ALL, Ledger())


@given(st.lists(st.integers(), max_size=30), st.floats(0, 4), st.integers(0, 9))
def test_repeat_gives_each_item_its_share_in_exact_count(items: list[int], times: float, seed: int) -> None:
    named = list(enumerate(items))
    found = repeat(named, times, seed)
    assert len(found) == int(times) * len(items) + round((times - int(times)) * len(items))
    counts = {item: found.count(item) for item in named}
    assert all(count in (int(times), int(times) + 1) for count in counts.values())
    assert found == repeat(named, times, seed)


def test_a_mix_holds_every_part_as_often_as_it_says() -> None:
    found = mix([(["s"] * 4, 0.5), (["a", "b"], 2.0), (["x"], 0.0)], seed=1)
    assert {name: found.count(name) for name in "sabx"} == {"s": 2, "a": 2, "b": 2, "x": 0}


def test_edited_beats_chosen_beats_rejected() -> None:
    prompt = (Message("user", "?"),)
    edited, chosen, rejected = (Message("assistant", name) for name in ("edited", "chosen", "rejected"))
    triple = Preference("t", prompt, chosen, rejected, edited)
    assert triple.ranked() == ((edited, chosen), (edited, rejected), (chosen, rejected))
    assert triple.widest() == (edited, rejected)
    plain = replace(triple, edited=None)
    assert plain.ranked() == ((chosen, rejected),) == (plain.widest(),)


def test_preferences_and_dialogues_survive_their_files(tmp_path: Path) -> None:
    call = Message("assistant", "", (ToolCall("add", {"a": 1}),))
    prompt = (Message("system", "Be brief."), Message("user", "1 + 1?"))
    triple = Preference("t", prompt, call, Message("assistant", "3"), Message("assistant", "2"))
    pair = replace(triple, edited=None)
    write_preferences(tmp_path / "pairs.jsonl", [triple, pair])
    assert read_preferences(tmp_path / "pairs.jsonl") == [triple, pair]
    groups = {"t0": (judged("ok", task_id="t0", reward=0.5),)}
    tasks = tasks_of(["t0"])
    kept = best_of_k(groups, groups, tasks, ALL, Ledger())
    write_accepted(tmp_path / "accepted.jsonl", kept)
    assert read_accepted(tmp_path / "accepted.jsonl") == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("chosen"),
        lambda row: row.update(rejected=[]),
        lambda row: row.update(chosen="yes"),
        lambda row: row.update(prompt=[{"role": "wizard", "content": "?"}]),
    ],
)
def test_a_malformed_preference_is_named_by_its_row(tmp_path: Path, change: object) -> None:
    path = tmp_path / "pairs.jsonl"
    prompt = (Message("user", "?"),)
    write_preferences(path, [Preference("t", prompt, Message("assistant", "a"), Message("assistant", "b"))] * 2)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[1])  # type: ignore[operator]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(FormatError, match="row 2"):
        read_preferences(path)
