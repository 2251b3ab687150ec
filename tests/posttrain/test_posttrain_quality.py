"""Quality control: each rule finds what it is for and leaves ordinary replies alone; every drop is accounted for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_fakes import Notes, Sum, judged

from herd import paddock
from herd.posttrain.language import same_language, same_script
from herd.posttrain.ledger import Ledger
from herd.posttrain.quality import clean, distinct
from herd.posttrain.records import Accepted, Candidate, Judged
from herd.posttrain.rules import RULES
from herd.posttrain.settings import QualitySettings
from herd.posttrain.similarity import greedy_distinct, ngram_counts, similarity, unit_rows
from herd.text.message import Message

SETTINGS = QualitySettings()
ORDINARY = [
    "The capital of Velmora is Tarsin, which lies on the river Ond.",
    "12 + 30 = 42, and 42 - 2 = 40. The answer is 40.",
    "เมืองหลวงของเวลโมราคือทาร์ซิน",
    "वेलमोरा की राजधानी तारसिन है।",
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n",
    "| a | b |\n|-----|-----|\n| 1 | 2 |\n",
    "Yes! That is right.",
    "Es tut mir leid, das weiß ich nicht.",
    "0.3333",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_replies_pass_every_rule(text: str) -> None:
    assert {name: rule(text, SETTINGS) for name, rule in RULES.items()} == dict.fromkeys(RULES)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("empty", " \n"),
        ("loop", "The answer is 4. The answer is 4. The answer is 4. The answer is 4. The ans"),
        ("loop", "So: " + "na " * 20),
        ("loop", "เดินไป" * 6),
        ("loop", "a" * 40),
        ("emoji", "Great 🎉🎉🎉🎉"),
        ("exclamations", "Yes! Yes! Sure! Of course!"),
        ("apologies", "I'm sorry, I apologize for that."),
        ("apologies", "Lo siento. De verdad, LO SIENTO."),
        ("apologies", "ขออภัย ขออภัยจริง ๆ"),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: str, text: str) -> None:
    assert RULES[rule](text, SETTINGS)


@given(st.text("abcdefgh ", min_size=3, max_size=12), st.integers(4, 9), st.text("xyz", max_size=9))
@settings(max_examples=60, deadline=None)
def test_a_stretch_that_comes_often_enough_is_a_loop_wherever_it_stands(unit: str, times: int, around: str) -> None:
    text = around + unit * times + around
    if len(unit.strip()) == len(unit) and len(unit) * times >= SETTINGS.loop_chars and "  " not in text:
        assert RULES["loop"](text, SETTINGS)


@given(st.permutations("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"))
@settings(max_examples=50, deadline=None)
def test_text_without_repetition_is_no_loop(letters: list[str]) -> None:
    assert RULES["loop"]("".join(letters), SETTINGS) is None


@pytest.mark.parametrize(
    ("text", "lang", "same"),
    [
        ("เมืองหลวงคือทาร์ซิน", "th", True),
        ("The capital is Tarsin", "th", False),
        ("राजधानी तारसिन है", "hi", True),
        ("राजधानी तारसिन है", "en", False),
        ("Die Hauptstadt heißt Tarsin", "de", True),
        ("ประเทศ ของ Kostra คือ Dravon", "th", True),  # names keep their script
        ("Quin का संस्थापक Berta है।", "hi", True),
        ("Dravon", "th", True),
        ("Das Dorf heißt Dravon", "hi", False),
        ('{"answer": "Juna"}', "th", True),
        ('{"answer": "red"}', "th", False),
        ("42", "th", True),
        ("3 + 4 = 7", "hi", True),
    ],
)
def test_the_script_tells_thai_and_hindi_from_the_rest(text: str, lang: str, same: bool) -> None:
    assert same_script(text, lang) is same


def test_the_identifier_is_asked_for_long_latin_replies_only() -> None:
    asked: list[str] = []

    def identify(text: str) -> str:
        asked.append(text)
        return "de"

    check = same_language(identify, min_chars=20)
    assert check("Kurz", "fr")
    assert check("ประเทศไทยอยู่ในทวีปเอเชียตะวันออกเฉียงใต้", "th")
    assert not asked
    assert not check("Die Hauptstadt von Velmora heißt Tarsin", "fr")
    assert check("Die Hauptstadt von Velmora heißt Tarsin", "de")


def test_the_right_answers_of_the_embedded_world_pass_the_rules() -> None:
    """What a perfect policy would say in eight languages is nothing that quality control may remove."""
    tasks = {
        task.id: task for task in paddock.tasks(paddock.make_world(paddock.WorldSettings()), "train", 120, "round")
    }
    groups = {}
    for name, task in tasks.items():
        candidate = Candidate(name, 0, (1,), (-1.0,), "", "stop")
        groups[name] = [Judged(candidate, task.answer, "correct")]
    ledger = Ledger()
    kept = clean(groups, tasks, SETTINGS, same_script, ledger)
    assert [(drop.rule, drop.reason, drop.text) for drop in ledger.drops] == []
    dialogues = [
        Accepted(name, tasks[name].capability, tasks[name].lang, tasks[name].dialogue(), one.text)
        for name, group in kept.items()
        for one in group
    ]
    assert len(distinct(dialogues, SETTINGS, ledger)) > 0.97 * len(dialogues)


def clean_one(replies: list[Judged], task: Sum | None = None, **changes: object) -> tuple[list[Judged], Ledger]:
    task = task or Sum("math/0", (Message("user", "?"),), "x")
    ledger = Ledger()
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    groups = clean({task.id: replies}, {task.id: task}, settings, same_script, ledger)
    return groups[task.id], ledger


def test_of_equal_and_nearly_equal_answers_the_first_stays() -> None:
    long = "First we add four and five which gives nine, then we take two away, so that seven remains in the end"
    kept, ledger = clean_one(
        [
            judged(long + ".", index=3),
            judged(long.upper() + ".", index=1),
            judged(long + "!", index=2),
            judged("7", index=4),
        ]
    )
    assert [one.candidate.index for one in kept] == [3, 4]
    assert [(drop.rule, drop.index) for drop in ledger.drops] == [("exact duplicate", 1), ("near duplicate", 2)]


def test_cut_off_malformed_and_foreign_replies_are_dropped_with_their_reason() -> None:
    problem = judged("call {", index=1)
    problem = replace(problem, reply=Message("assistant", "call {", problem="not JSON"))
    kept, ledger = clean_one(
        [judged("It is", index=0, finish="length"), problem, judged("คำตอบคือ 7", index=2), judged("It is 7", index=3)]
    )
    assert [one.candidate.index for one in kept] == [3]
    assert {drop.rule: drop.reason for drop in ledger.drops} == {
        "unfinished": "cut off at 1 tokens",
        "malformed": "not JSON",
        "language": "not in 'en'",
    }


def test_a_length_far_from_the_rest_is_an_outlier_and_few_replies_have_none() -> None:
    tasks = {f"t{n}": Sum(f"t{n}", (Message("user", "?"),), "x") for n in range(41)}
    texts = [" ".join(f"word{(n * 7 + k) % 97}" for k in range(8 + n % 3)) for n in range(40)]
    texts.append(" ".join(f"word{k}" for k in range(900)))
    groups = {f"t{n}": [judged(text, task_id=f"t{n}")] for n, text in enumerate(texts)}
    ledger = Ledger()
    clean(groups, tasks, SETTINGS, same_script, ledger)
    assert [(drop.task_id, drop.rule) for drop in ledger.drops] == [("t40", "length")]
    few = Ledger()
    clean({name: groups[name] for name in ("t0", "t1", "t40")}, tasks, SETTINGS, same_script, few)
    assert not few.drops


def test_the_ledger_names_rules_that_dropped_all_or_nothing() -> None:
    tasks = {f"t{n}": Sum(f"t{n}", (Message("user", "?"),), "x") for n in range(30)}
    groups = {name: [judged(f"It is {name}! Yes! Really! Truly!", task_id=name)] for name in tasks}
    ledger, notes = Ledger(), Notes()
    assert not any(clean(groups, tasks, SETTINGS, same_script, ledger).values())
    ledger.tell(notes)
    said = {row["rule"]: row["says"] for row in ledger.report()}
    assert said["exclamations"] == "dropped everything"
    assert said["emoji"] == "dropped nothing"
    assert said["apologies"] == "saw nothing"
    assert "'exclamations' dropped all 30" in notes.notes[0]
    assert "0 %" in notes.notes[1]
    assert len(ledger.drops) == ledger.dropped.total() == 30


def accepted(name: str, question: str, answer: str, **changes: object) -> Accepted:
    messages = (Message("user", question), Message("assistant", answer))
    one = Accepted(name, "math", "en", messages, answer, quality=1.0, difficulty=0.5)
    return replace(one, **changes)  # type: ignore[arg-type]


def test_semantic_duplicates_leave_the_one_of_highest_quality_times_difficulty() -> None:
    question = "Tell me at length how the river Ond came by its name and who first sailed down it to the sea"
    answer = "The river was named by shepherds, who called it Ond for its sound; a fisher named Mira sailed it first."
    dialogues = [
        accepted("easy", question, answer, difficulty=0.1),
        accepted("hard", question + " then", answer, difficulty=0.9),
        accepted("other", "What is 3 and 4?", "It is 7."),
        accepted("tongue", question, answer + " Yes.", lang="de", difficulty=0.0),
    ]
    ledger = Ledger()
    kept = distinct(dialogues, SETTINGS, ledger)
    assert [one.task_id for one in kept] == ["hard", "other", "tongue"]
    assert [(drop.task_id, drop.rule) for drop in ledger.drops] == [("easy", "semantic duplicate")]


def test_dialogues_that_differ_in_a_name_or_number_only_are_all_kept() -> None:
    names = [a + b + c for a in ("Tar", "Vel", "Mon", "Ker") for b in ("si", "mo", "lu") for c in ("n", "ra", "th")]
    dialogues = [accepted(n, f"What is the capital of {n}?", f"The capital of {n} is {n[::-1]}.") for n in names]
    dialogues += [accepted(f"s{n}", f"What is {n} and {n * 3}?", f"It is {4 * n}.") for n in range(10, 60)]
    ledger = Ledger()
    kept = distinct(dialogues, SETTINGS, ledger)
    assert len(kept) >= 0.97 * len(dialogues), [(drop.task_id, drop.reason) for drop in ledger.drops]


def test_word_for_word_equal_dialogues_leave_one_also_when_clusters_are_split() -> None:
    dialogues = [accepted(f"t{n}", f"Question {n % 40}?", f"Answer {n % 40}.", quality=n / 100) for n in range(80)]
    ledger = Ledger()
    kept = distinct(dialogues, replace(SETTINGS, cluster_size=8, semantic_duplicate=2.0), ledger)
    assert sorted(one.task_id for one in kept) == sorted(f"t{n}" for n in range(40, 80))
    assert ledger.dropped == {"equal dialogue": 40}


def test_greedy_distinct_equals_its_definition() -> None:
    rng = np.random.default_rng(3)
    rows = unit_rows(np.abs(rng.normal(size=(400, 6))).astype(np.float32))
    order = list(rng.permutation(400))
    blocked = greedy_distinct(rows, order, 0.97)
    kept: list[int] = []
    for index in order:
        near = [other for other in kept if float(rows[other] @ rows[index]) >= 0.97]
        assert (blocked[index] is None) == (not near)
        if near:
            assert blocked[index] in near
        else:
            kept.append(index)
    assert 10 < len(kept) < 390


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_similarity_is_a_symmetric_share(first: str, second: str) -> None:
    value = similarity(first, second)
    assert 0.0 <= value <= 1.0 + 1e-6
    assert value == pytest.approx(similarity(second, first), abs=1e-6)
    assert similarity(first, first) == 1.0


def test_counts_are_those_of_the_text_s_ngrams() -> None:
    text = "abcabcabd"
    counts = ngram_counts([text], width=1 << 16, n=3)[0]
    grams = [text[i : i + 3] for i in range(len(text) - 2)]
    assert sorted(counts[counts > 0]) == sorted(grams.count(gram) for gram in set(grams))
