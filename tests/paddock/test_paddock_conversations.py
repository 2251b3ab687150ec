"""Conversations: right in every turn, kept apart from what is held out, short enough, and no part of the suite."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import pytest
from paddock_small import pages, some, world

from herd.corpus.documents import Document
from herd.errors import ArtifactError, SettingError
from herd.evaluate.suite import Suite
from herd.paddock import (
    LANGUAGES,
    PaddockSettings,
    Task,
    WorldSettings,
    make_world,
    task_from_dict,
    task_to_dict,
    verify,
)
from herd.paddock import tasks as suite_tasks
from herd.paddock.checks import run_check
from herd.paddock.conversations import conversations, independent, joined, probe
from herd.paddock.documents import documents
from herd.paddock.language import language
from herd.paddock.settings import FOLLOW_UP, TURNS
from herd.paddock.skills import follow_up
from herd.paddock.skills.draft import Draft
from herd.recipes import find
from herd.road.world import prompt_words, prove_disjoint
from herd.text import Tokenizer
from herd.text.chat import encode_dialogue, encode_prompt
from herd.text.message import Message

# SHA-256 over all items of the suite. Another value means that scores no longer compare with those published before:
# then raise SUITE_VERSION of road/means.py.
SUITES = {
    "nano": "eb823f666415735c89bdd5786a2f53fe0fc6191c01412b6489e219feb558e469",
    "pico": "76d5c9d7a96edf9987d9e01bf1eca81afc05fed4a8e2265129a0f1edce817c15",
}


@cache
def trained() -> tuple[Task, ...]:
    return tuple(conversations(world(), 400, "tests"))


@cache
def held() -> tuple[Task, ...]:
    return tuple(probe(world(), 64))


def users(task: Task) -> list[str]:
    return [message.content for message in task.messages if message.role == "user"]


@pytest.mark.parametrize("name", SUITES)
def test_the_suite_has_the_items_that_it_always_had(name: str) -> None:
    settings = find(name).documents.paddock
    assert settings is not None
    found = suite_tasks(make_world(settings.world), "held_out", settings.held_out_per_capability, "suite")
    assert Suite("paddock", "2", tuple(found)).fingerprint == SUITES[name]
    assert not {task.capability for task in found} & {"conversation", *TURNS, FOLLOW_UP}


def test_there_are_as_many_as_asked_in_all_languages_and_none_twice() -> None:
    assert len({task.id for task in trained()}) == len(trained()) == 400
    assert Counter(task.capability for task in held()) == dict.fromkeys((*TURNS, FOLLOW_UP), 64)
    assert len({task.id for task in held()}) == len(held())
    for group in (trained(), held()):
        assert {task.lang for task in group} == set(LANGUAGES)
    assert {len(users(task)) for task in trained()} == {2, 3}
    few = conversations(world(), 40, "tests")
    assert tuple(few) == trained()[:40]
    assert not {task.id for task in conversations(world(), 40, "others")} >= {task.id for task in few}


def test_every_right_answer_passes_and_that_of_another_conversation_does_not() -> None:
    rng = random.Random(3)
    wrong = 0
    for task in (*trained(), *held()):
        assert verify(task, task.answer).ok, task
        assert not verify(task, "").ok
        other = rng.choice(trained())
        wrong += not verify(task, other.answer).ok
    assert wrong > 0.9 * (len(trained()) + len(held()))


def chains() -> list[list[Draft]]:
    """Turns before they are joined: of every kind of follow-up and of independent tasks."""
    rng = random.Random(5)
    named = ("facts", "translated", "sums", "tools", "page", "functions")
    kinds = [getattr(follow_up, name) for name in named]
    followed = [kind(world(), rng, lang, turns) for kind in kinds for lang in LANGUAGES for turns in (2, 3, 3)]
    apart = [
        independent(world(), rng, lang, turns, "train") for lang in LANGUAGES for turns in (2, 3) for _ in range(12)
    ]
    return [*followed, *apart]


def test_each_turn_keeps_to_the_system_message_and_has_its_own_right_answer() -> None:
    """Styles and tools govern all turns: each turn's answer passes a check that knows of them."""
    styled = calling = 0
    for drafts in chains():
        task = joined(drafts)
        systems = {tuple(m.content for m in draft.messages if m.role == "system") for draft in drafts}
        assert len(systems) == 1
        assert [m.content for m in task.messages if m.role == "system"] == list(systems.pop())
        assert [m.role for m in task.messages].index("user") <= 1
        for draft in drafts:
            assert run_check(draft.check, draft.answer).ok
            assert sum(m.role == "user" for m in draft.messages) == 1
        styled += drafts[0].check.kind in ("upper", "prefix", "suffix", "json", "one_word")
        calling += any(m.tool_calls for m in task.messages)
    assert styled > 20
    assert calling > 20


def test_roles_take_turns_and_every_earlier_call_has_its_result() -> None:
    after = {"system": {"user"}, "user": {"assistant"}, "ipython": {"assistant"}}
    for task in (*trained(), *held()):
        for message, following in zip(task.dialogue(), task.dialogue()[1:], strict=False):
            expected = after.get(message.role, {"ipython"} if message.tool_calls else {"user"})
            assert following.role in expected, task
        assert task.dialogue()[-1].role == "assistant"


def test_a_follow_up_says_nothing_alone() -> None:
    """The same last words have another answer after other turns."""
    answers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    rng = random.Random(1)
    for lang in LANGUAGES:
        for _ in range(120):
            drafts = follow_up.chain(world(), rng, lang, 2)
            said = drafts[-1].messages[-1] if drafts[-1].messages[-1].role == "user" else drafts[-1].messages[1]
            answers[lang, said.content].add(repr(drafts[-1].answer))
    frequent = [found for found in answers.values() if len(found) > 1]
    assert sum(map(len, frequent)) > 0.7 * sum(map(len, answers.values()))


def test_a_result_asked_for_again_is_told_without_another_call() -> None:
    rng = random.Random(2)
    seen = 0
    for lang in LANGUAGES * 6:
        drafts = follow_up.tools(world(), rng, lang, 2)
        if drafts[-1].messages[-1].content == language(lang).data["follow_up"]["again"]:
            seen += 1
            assert run_check(drafts[-1].check, drafts[0].answer).ok
            call = next(message for message in drafts[0].messages if message.tool_calls)
            assert not run_check(drafts[-1].check, Message("assistant", "", call.tool_calls)).ok
    assert seen > 10


def test_a_function_under_another_name_runs_and_the_old_name_does_not_pass() -> None:
    rng = random.Random(4)
    for _ in range(40):
        *_, before, last = follow_up.functions(world(), rng, "en", 3)
        assert run_check(last.check, last.answer).ok
        assert not run_check(last.check, before.answer).ok
        assert last.messages[-1].content == f"Now call it {last.check.spec['name']}."


def test_the_same_question_stands_alone_second_and_third() -> None:
    by_place = [[task for task in held() if task.capability == name] for name in TURNS]
    for alone, second, third in zip(*by_place, strict=True):
        assert [len(users(task)) for task in (alone, second, third)] == [1, 2, 3]
        assert users(alone)[-1] == users(second)[-1] == users(third)[-1]
        assert alone.answer == second.answer == third.answer
        assert alone.check == second.check == third.check
        assert users(third)[1:] == users(second)


def test_what_is_held_out_is_in_no_conversation_to_train_on() -> None:
    keys = {key for task in (*trained(), *some("train")) for key in task.keys}
    assert not any(map(world().held_out, keys))
    for task in held():
        assert task.split == "held_out"
        assert any(map(world().held_out, task.keys))
    for task in held():  # asked alone, second and third: every turn of it is unseen
        if task.capability in TURNS:
            assert not set(filter(world().held_out, task.keys)) & keys


def test_the_proof_covers_conversations() -> None:
    train = [*some("train"), *trained()]
    assert prove_disjoint(pages(), train, held())["overlaps"] == 0
    follow_ups = [t for t in held() if t.capability == FOLLOW_UP and all(m.role != "ipython" for m in t.messages)]
    for leaked in follow_ups[:6]:
        page = Document("leak", f"Before. {prompt_words(leaked)} After.", "en", "user")
        with pytest.raises(ArtifactError, match="held-out prompts share"):
            prove_disjoint([*pages(), page], train, held())
        with pytest.raises(ArtifactError):
            prove_disjoint(pages(), [*train, leaked], held())


@pytest.mark.parametrize("name", ["pico", "nano"])
def test_every_conversation_fits_a_row(name: str) -> None:
    """What does not fit is left out of training: here nothing may be."""
    recipe = find(name)
    settings = recipe.documents.paddock
    assert settings is not None
    assert recipe.posttrain is not None
    made = make_world(settings.world)
    texts = [page.text for page in list(documents(made, settings))[::3]]  # of all eight languages
    tokenizer = Tokenizer.train(texts, recipe.tokenizer.vocab_size)
    row = recipe.posttrain.start.seq_len
    asked = conversations(made, settings.conversation_prompts, "prompts")
    for task in (*conversations(made, settings.conversations, "seed"), *asked):
        assert len(encode_dialogue(tokenizer, task.dialogue()).ids) <= row, task
    room = recipe.posttrain.rounds[0].collect.draw.max_tokens
    assert max(len(tokenizer.encode(task.answer.content)) for task in asked) < room
    for task in probe(made, settings.conversation_probe):
        assert len(encode_prompt(tokenizer, task.messages)) <= row


def test_they_survive_json() -> None:
    for task in (*trained()[:80], *held()[:80]):
        again = task_from_dict(json.loads(json.dumps(task_to_dict(task), ensure_ascii=False)))
        assert task_to_dict(again) == task_to_dict(task)
        assert verify(again, again.answer).ok


def test_a_world_without_held_out_questions_has_no_probe() -> None:
    assert probe(make_world(WorldSettings(towns=4, held_out=1e-12)), 8) == []
    assert conversations(world(), 0, "tests") == probe(world(), 0) == []


@pytest.mark.parametrize("name", ["conversations", "conversation_prompts", "conversation_probe"])
def test_counts_that_cannot_be(name: str) -> None:
    for wrong in (-1, 10**9):
        with pytest.raises(SettingError) as caught:
            replace(PaddockSettings(), **{name: wrong})  # type: ignore[arg-type]
        assert caught.value.where == name
