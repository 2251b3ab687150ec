"""The embedded world: the same from the same seed anywhere, complete in eight languages, and never leaking."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paddock_small import SETTINGS, pages, some, world

from herd.corpus.documents import Document
from herd.corpus.ngrams import overlaps
from herd.corpus.settings import CurateSettings
from herd.errors import ArtifactError, SettingError
from herd.paddock import LANGUAGES, PaddockSettings, Task, WorldSettings, make_world, tasks
from herd.paddock.documents import SOURCE, documents
from herd.paddock.language import all_languages, language
from herd.paddock.noise import KINDS, plant, shuffled
from herd.paddock.settings import DOCUMENT_KINDS
from herd.paddock.skills.steerability import STYLES, styles_of
from herd.paddock.skills.translation import triple_key
from herd.paddock.world import ANIMALS, ATTRIBUTES, COLOURS, COUNTRIES, FOUNDERS, OBJECTS, PEOPLE, TOWNS, VERBS
from herd.road.world import prompt_words, prove_disjoint

SCRIPTS = {"hi": "DEVANAGARI", "th": "THAI"}


def digest(found: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(repr, found)).encode()).hexdigest()


def test_the_same_seed_gives_the_same_world_in_another_process() -> None:
    here = [digest(pages()), digest(some("train", 20)), digest(some("held_out", 20))]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_paddock_world import digest, pages, some\n"
        "print(digest(pages()), digest(some('train', 20)), digest(some('held_out', 20)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == here


def test_another_seed_gives_another_world() -> None:
    other = make_world(replace(SETTINGS.world, seed=6))
    assert other.facts != world().facts
    assert [task.id for task in tasks(other, "train", 8, "tests")] != [task.id for task in some("train", 8)]


def test_more_of_one_kind_changes_no_other() -> None:
    more = replace(SETTINGS, documents={**SETTINGS.documents, "quiz": 60, "sums": 0})
    before = {page.id: page.text for page in pages() if "sums" not in page.id}
    after = {page.id: page.text for page in documents(world(), more)}
    assert len(after) == len(before) + 20
    assert before.items() <= after.items()


def test_more_tasks_begin_with_the_same_ones() -> None:
    few, many = some("train", 16), some("train", 24)
    assert {task.id for task in few} < {task.id for task in many}
    assert len({task.id for task in many}) == len(many)
    assert {task.id for task in some("train", 16, "another purpose")} != {task.id for task in few}


def test_the_split_is_a_matter_of_keys() -> None:
    held_out, train = some("held_out"), some("train")
    keys = {key for task in train for key in task.keys}
    assert not any(world().held_out(key) for key in keys)
    for task in held_out:
        assert any(world().held_out(key) for key in task.keys)
        assert not set(filter(world().held_out, task.keys)) & keys


def test_the_share_held_out_is_the_one_asked_for() -> None:
    share = sum(world().held_out(f"key/{number}") for number in range(20_000)) / 20_000
    assert share == pytest.approx(SETTINGS.world.held_out, abs=0.01)


def test_no_page_asks_a_held_out_question() -> None:
    everything = "\n".join(page.text for page in pages())
    asked = unasked = 0
    for lang in LANGUAGES:
        speech = language(lang)
        own = "\n".join(page.text for page in pages() if page.lang == lang)
        for town in world().towns:
            for attribute in ATTRIBUTES:
                question = speech.question(attribute, town)
                if world().held_out(f"knowledge/{lang}/{town}/{attribute}"):
                    assert question not in everything
                    unasked += 1
                else:
                    asked += question in own
    assert unasked > 20
    assert asked > 100


def test_no_page_says_a_held_out_sentence_in_any_language() -> None:
    everything = "\n".join(page.text for page in pages()).casefold()
    held = said = 0
    for triple in ((a, v, o) for a in ANIMALS for v in VERBS for o in OBJECTS):
        sentences = [speech.sentence(*triple).rstrip(".।").casefold() for speech in all_languages()]
        if world().held_out(triple_key(triple)):
            held += 1
            assert not [
                sentence for sentence in sentences if sentence + "." in everything or sentence + "।" in everything
            ]
        else:
            said += any(sentence in everything for sentence in sentences)
    assert held > 30
    assert said > 100


def test_the_proof_holds_and_a_planted_question_breaks_it() -> None:
    train, held_out = some("train"), some("held_out")
    proof = prove_disjoint(pages(), train, held_out)
    assert proof["overlaps"] == 0
    assert proof["checked"] > 300
    assert proof["against"] == len(pages()) + len(train)
    for leaked in [task for task in held_out if task.capability in ("knowledge", "math", "translation")][:6]:
        page = Document("leak", f"Before. {prompt_words(leaked)} After.", "en", "user")
        with pytest.raises(ArtifactError, match="held-out prompts share"):
            prove_disjoint([*pages(), page], train, held_out)
        with pytest.raises(ArtifactError):
            prove_disjoint(pages(), [*train, leaked], held_out)


def test_overlaps_see_what_the_proof_leaves_out() -> None:
    """Tool results make an asked prompt new: those tasks are kept apart by the world's keys instead."""
    left_out = [task for task in some("held_out") if any(message.role == "ipython" for message in task.messages)]
    assert left_out
    assert all(task.capability == "tool_use" for task in left_out)
    assert overlaps([prompt_words(task) for task in left_out], [prompt_words(left_out[0])], 22)


def shape(value: Any) -> Any:
    """Keys and list lengths, not words."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return len(value) if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_language_says_everything(lang: str) -> None:
    data, english = dict(language(lang).data), dict(language("en").data)
    assert data.keys() == english.keys()
    for table, words in (("animals", ANIMALS), ("objects", OBJECTS), ("objects_accusative", OBJECTS)):
        assert set(words) <= data[table].keys()
        assert len(set(data[table].values())) == len(data[table])
    assert set(COLOURS) <= data["colours"].keys()
    assert set(VERBS) <= data["verbs"].keys() & data["verbs_feminine"].keys()
    assert set(data["feminine_animals"]) <= set(ANIMALS)
    for table in ("facts", "tools", "houses", "talk"):
        assert shape(data[table]) == shape(english[table])
    assert data["math"].keys() == english["math"].keys()
    for form in data["math"]["things"].values():
        assert form.keys() == data["math"]["things"]["stones"].keys()
    styles = data["style"]
    assert styles.keys() == english["style"].keys() == set(STYLES)
    assert (styles["upper"] is None) == (lang in SCRIPTS)
    assert len(styles_of(lang)) == (5 if lang in ("en", *SCRIPTS) else 6)


def letters(text: str) -> Counter[str]:
    """Letters and marks by script."""
    return Counter(unicodedata.name(char).split()[0] for char in text if unicodedata.category(char)[0] in "LM")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_language_is_written_in_its_own_script(lang: str) -> None:
    """Proper names stay in Latin letters everywhere, and so does the name of JSON."""
    names = {*TOWNS, *COUNTRIES, *FOUNDERS, *PEOPLE, "JSON", "x"}
    for page in pages():
        if page.lang != lang:
            continue
        words = [word.strip(".,:?!\"'()¿।") for word in page.text.replace("\n", " ").split()]
        found = letters(" ".join(word for word in words if word not in names and not word.isupper()))
        if lang in SCRIPTS:
            assert found[SCRIPTS[lang]] > 20
            # style pages ask for a language in English: "Answer in Thai." and its English question
            if "styles" not in page.id:
                assert found["LATIN"] == 0, page.text
        else:
            assert found["LATIN"] > 20
            assert not found["THAI"] + found["DEVANAGARI"] or "styles" in page.id, page.text


def test_planted_noise_is_what_the_truth_says() -> None:
    clean = list(pages())
    planted, truth = plant(world(), clean, SETTINGS.noise_per_kind)
    assert len(planted) == len(KINDS) * SETTINGS.noise_per_kind
    assert {page.id for page in planted} == truth.keys()
    assert {page.source for page in planted}.isdisjoint([*CurateSettings().trusted_sources, SOURCE])
    assert Counter(known.kind for known in truth.values()) == dict.fromkeys(KINDS, SETTINGS.noise_per_kind)
    originals = {page.id: page for page in clean}
    assert not truth.keys() & originals.keys()
    exact = 0
    for page in planted:
        known = truth[page.id]
        if known.kind == "pii":
            assert len(known.secrets) >= 9
            assert all(secret in page.text for secret in known.secrets)
            assert luhn(known.secrets[-1])
        if known.kind == "duplicate":
            original = originals[known.copy_of]
            same = [a == b for a, b in zip(page.text.split(" "), original.text.split(" "), strict=True)]
            assert same.count(False) <= 1
            exact += all(same)
    assert 0 < exact < SETTINGS.noise_per_kind
    again, _ = plant(world(), clean, SETTINGS.noise_per_kind)
    assert again == planted


def luhn(card: str) -> bool:
    digits = [int(char) for char in card.replace(" ", "")][::-1]
    return (sum(digits[::2]) + sum(d * 2 - 9 * (d > 4) for d in digits[1::2])) % 10 == 0


def test_the_order_says_nothing_and_loses_nothing() -> None:
    planted, _ = plant(world(), pages(), 10)
    mixed = shuffled(world(), [*pages(), *planted])
    assert sorted(page.id for page in mixed) == sorted(page.id for page in [*pages(), *planted])
    places = [place for place, page in enumerate(mixed) if page in planted]
    assert max(places) - min(places) > len(mixed) // 2
    assert shuffled(world(), [*pages(), *planted]) == mixed


def test_every_kind_of_page_is_written_with_its_language() -> None:
    assert Counter(page.id.split("-")[1] for page in pages()) == SETTINGS.documents
    assert len({page.id for page in pages()}) == len(pages())
    assert {page.lang for page in pages()} <= {*LANGUAGES, "code", "mul"}
    assert all(page.text.strip() and page.source == "paddock" for page in pages())
    assert not any("{" in page.text and "format" in page.text for page in pages())


def test_worlds_that_cannot_be() -> None:
    for wrong in ({"towns": 3}, {"towns": 25}, {"held_out": 0.0}, {"held_out": 0.5}):
        with pytest.raises(SettingError) as caught:
            WorldSettings(**wrong)
        assert caught.value.where in wrong
    with pytest.raises(SettingError, match="'novel' is not a kind of document"):
        PaddockSettings(documents={"novel": 3})
    tiny = make_world(WorldSettings(towns=4, held_out=1e-12))
    with pytest.raises(SettingError, match="too small for a held_out task of knowledge") as caught:
        tasks(tiny, "held_out", 5, "tests")
    assert "world.held_out" in caught.value.mend


def test_a_small_world_gives_what_it_has() -> None:
    small = make_world(WorldSettings(towns=4, held_out=0.3))
    found: list[Task] = tasks(small, "held_out", 500, "tests")
    counts = Counter(task.capability for task in found)
    assert counts["knowledge"] < 4 * len(ATTRIBUTES) * len(LANGUAGES)
    assert len({task.id for task in found}) == len(found)
    assert counts["math"] == 500


def test_document_kinds_are_all_written() -> None:
    assert set(PaddockSettings().documents) == set(DOCUMENT_KINDS)
    assert json.loads(json.dumps(dict(PaddockSettings().documents)))
