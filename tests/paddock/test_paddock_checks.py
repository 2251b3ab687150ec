"""Verifiers: the reference answer of every kind of task passes, and every way of being wrong fails."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from paddock_small import some, world

from herd.paddock import CAPABILITIES, LANGUAGES, Check, Task, task_from_dict, task_to_dict, verify
from herd.paddock.checks import has_words, run_check
from herd.paddock.language import language
from herd.paddock.skills.draft import bare
from herd.paddock.skills.steerability import style_task, styles_of
from herd.paddock.task import Split
from herd.paddock.world import ATTRIBUTES, VALUES
from herd.text.message import Message, ToolCall

SPLITS: tuple[Split, ...] = ("train", "held_out")


def of_kind(*kinds: str) -> Iterator[Task]:
    return (task for split in SPLITS for task in some(split) if task.check.kind in kinds)


@pytest.mark.parametrize("split", SPLITS)
def test_every_reference_answer_passes(split: Split) -> None:
    chosen = some(split)
    counts = Counter((task.capability, task.lang) for task in chosen)
    assert {capability for capability, _ in counts} == set(CAPABILITIES)
    for capability in set(CAPABILITIES) - {"code"}:
        assert {lang for name, lang in counts if name == capability} == set(LANGUAGES), capability
    for task in chosen:
        assert task.split == split
        assert verify(task, task.answer).ok, task
        if not task.answer.tool_calls:
            assert verify(task, f"  {task.answer.content}\n").ok
            assert task.answer.content.strip()


def test_an_empty_reply_and_one_of_the_wrong_form_fail() -> None:
    call = Message("assistant", "", (ToolCall("weather", {"town": "Brenn"}),))
    for split in SPLITS:
        for task in some(split, 16):
            for empty in ("", "  \n", "\u00a0"):
                assert not verify(task, empty).ok
            if task.check.kind == "call":
                assert verify(task, task.answer.content or "Brenn").reason == "not one well-formed call"
            else:
                assert verify(task, call).reason == "a tool call where an answer is asked for"


def test_an_answer_to_another_question_fails() -> None:
    """Each answer against the other tasks of its capability: it passes only where it is right as well."""
    rng = random.Random(0)
    wrong = right = 0
    for capability in CAPABILITIES:
        group = [task for task in some("train") if task.capability == capability]
        for task, other in ((rng.choice(group), rng.choice(group)) for _ in range(200)):
            ok = verify(task, other.answer).ok
            if task.check == other.check:
                assert ok
            elif task.check.kind != "python":  # one function may be right for two wordings
                wrong, right = wrong + (not ok), right + ok
    assert wrong > 20 * right


def test_another_value_fails_and_so_does_naming_two() -> None:
    seen = 0
    for task in of_kind("contains"):
        spec, text = task.check.spec, task.answer.content
        assert spec["others"]
        for other in spec["others"][:3]:
            swapped = re.sub(re.escape(spec["expected"]), other, text, flags=re.IGNORECASE)
            assert verify(task, swapped).reason == "the answer is not in the reply"
            assert verify(task, f"{text} {other}").reason == "names another answer as well"
        assert not verify(task, text.replace(spec["expected"], spec["expected"] + "x")).ok
        seen += 1
    assert seen > 60


def test_wrong_numbers_and_wrong_steps_fail() -> None:
    seen = steps = 0
    for task in of_kind("number"):
        expected, text = task.check.spec["expected"], task.answer.content
        start = text.rindex(str(expected))
        before, after = text[:start], text[start + len(str(expected)) :]
        for wrong in (
            str(expected + 1),
            f"{expected}7",
            f"-{expected + 1}",
            f"{expected}.5",
            f"0,{expected}",
            "9" * 5000,
        ):
            assert not verify(task, f"{before}{wrong}{after}").ok, wrong
        assert not verify(task, f"{text} 77").ok
        if found := re.search(r"= (\d+)", text):
            steps += 1
            lie = text.replace(found[0], f"= {int(found[1]) + 1}", 1)
            assert verify(task, lie).reason == "a worked step is false"
        seen += 1
    assert seen > 100
    assert steps > 60


def test_wrong_calls_fail() -> None:
    seen = 0
    for task in of_kind("call"):
        (call,) = task.answer.tool_calls
        ((key, value),) = call.parameters.items()
        wrong = [
            (),
            (ToolCall("other", dict(call.parameters)),),
            (ToolCall(call.name, {key: f"{value}x"}),),
            (ToolCall(call.name, {key: value.upper() + "!"}),),
            (ToolCall(call.name, {"other": value}),),
            (ToolCall(call.name, {key: value, "more": 1}),),
            (ToolCall(call.name, {}),),
        ]
        for calls in wrong:
            assert not verify(task, Message("assistant", "", calls)).ok
        seen += 1
    assert seen > 30


def test_wrong_code_fails() -> None:
    seen = 0
    for task in of_kind("python"):
        body = task.answer.content
        for wrong in (
            f"{body} + 1",
            f"{body} + 0.0",
            body.replace("def ", "def not_"),
            f"import os\n{body}",
            f"`{body}`",
        ):
            assert not verify(task, wrong).ok, wrong
        seen += 1
    assert seen > 40
    check = Check("python", {"name": "f", "cases": [[[3], True]]})
    assert run_check(check, Message("assistant", "def f(x):\n    return x > 2")).ok
    assert not run_check(check, Message("assistant", "def f(x):\n    return 1")).ok  # 1 == True in Python


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_missing_style_fails(lang: str) -> None:
    """Every style of every language, on every attribute; the plain answer is right and not in the style."""
    for style in styles_of(lang):
        for attribute in ATTRIBUTES:
            town = world().towns[0]
            draft = style_task(world(), lang, style, town, attribute)
            plain = language(lang).statement(attribute, town, world().facts[town, attribute])
            assert run_check(draft.check, draft.answer).ok, (style, attribute)
            english = language("en").statement(attribute, town, world().facts[town, attribute])
            if style == "language":
                same = draft.check.spec["expected"].casefold() in english.casefold()
                assert run_check(draft.check, Message("assistant", english)).ok == same
            else:
                assert not run_check(draft.check, Message("assistant", plain)).ok, (style, attribute)
            if word := draft.check.spec.get("word"):
                assert word in draft.messages[0].content
                for glued in (f"{word}x {plain}", f"{plain} x{word}", plain.replace(" ", f" {word} ", 1)):
                    assert not run_check(draft.check, Message("assistant", glued)).ok


def test_a_style_without_the_right_fact_fails() -> None:
    for task in of_kind("upper", "prefix", "suffix", "one_word", "json"):
        spec, text = task.check.spec, task.answer.content
        expected = spec["expected"].upper() if task.check.kind == "upper" else spec["expected"]
        other = spec["others"][0].upper() if task.check.kind == "upper" else spec["others"][0]
        assert expected in text
        assert not verify(task, text.replace(expected, other)).ok, task


@pytest.mark.parametrize("reply", ["", "{", "[1]", "{}", '{"answer": 3}', '{"Answer": "red"}', "1" * 5000, "[" * 9999])
def test_json_that_is_none(reply: str) -> None:
    assert not run_check(Check("json", {"expected": "red", "others": []}), Message("assistant", reply)).ok
    assert run_check(Check("json", {"expected": "red"}), Message("assistant", '{"answer": "Red."}')).ok


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_value_is_found_in_the_statement_of_another(lang: str) -> None:
    speech = language(lang)
    for attribute, values in VALUES.items():
        for value in values:
            statement = speech.statement(attribute, "Brenn", value)
            named = [other for other in values if has_words(statement, bare(speech.word(other)))]
            assert named == [value]


def test_tasks_survive_json() -> None:
    for split in SPLITS:
        for task in some(split, 24):
            again = task_from_dict(json.loads(json.dumps(task_to_dict(task), ensure_ascii=False)))
            assert task_to_dict(again) == task_to_dict(task)
            assert (again.messages, again.answer, again.keys) == (task.messages, task.answer, task.keys)
            assert verify(again, again.answer).ok
