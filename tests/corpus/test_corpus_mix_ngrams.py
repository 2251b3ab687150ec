"""Mixing by source, and the proof that held-out texts are disjoint."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from corpus_texts import clean

from herd.corpus import ngrams
from herd.corpus.documents import Document
from herd.corpus.mix import mix
from herd.corpus.ngrams import overlaps
from herd.errors import InputError, SettingError


def sources() -> dict[str, list[Document]]:
    return {
        name: [Document(f"{name}{k}", "w " * (k % 7 + 1), "en", name) for k in range(count)]
        for name, count in (("big", 500), ("small", 20), ("none", 10))
    }


def size(document: Document) -> int:
    return document.text.count("w")


def test_shares_follow_the_weights() -> None:
    result = mix(sources(), {"big": 3.0, "small": 1.0, "none": 0.0}, 1000, size)
    taken = Counter[str]()
    for document in result.documents:
        taken[document.source] += size(document)
    shares = {share.source: share for share in result.shares}
    assert 750 <= taken["big"] < 757
    assert 250 <= taken["small"] < 257
    assert taken["none"] == 0
    assert shares["small"].tokens == taken["small"]
    assert shares["small"].epochs == pytest.approx(taken["small"] / shares["small"].tokens_available, abs=1e-4)
    assert shares["small"].epochs > 1 > shares["big"].epochs


def test_epochs_repeat_every_document_equally_often() -> None:
    result = mix({"small": sources()["small"]}, {"small": 1.0}, 400, size)
    counts = Counter(document.id for document in result.documents)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_choice_depends_on_ids_and_seed_only() -> None:
    weights = {"big": 1.0, "small": 1.0, "none": 1.0}
    first = [document.id for document in mix(sources(), weights, 300, size).documents]
    turned = {name: list(reversed(group)) for name, group in reversed(sources().items())}
    assert [document.id for document in mix(turned, weights, 300, size).documents] == first
    assert [document.id for document in mix(sources(), weights, 300, size, seed=1).documents] != first


def test_weights_must_speak_of_every_source() -> None:
    with pytest.raises(SettingError, match="'none'"):
        mix(sources(), {"big": 1.0, "small": 1.0}, 100, size)
    with pytest.raises(SettingError, match="'other'"):
        mix({}, {"other": 1.0}, 100, size)
    with pytest.raises(SettingError, match="negative"):
        mix(sources(), {"big": 1.0, "small": -1.0, "none": 1.0}, 100, size)
    with pytest.raises(InputError, match="'empty'"):
        mix({"empty": []}, {"empty": 1.0}, 100, size)


def test_an_inserted_passage_is_found_even_rewrapped() -> None:
    rng = random.Random(0)
    words = [f"Word{k}" for k in range(500)]
    held = [" ".join(rng.choices(words, k=40)) for _ in range(50)]
    train = [document.text for document in clean(100, seed=7)]
    assert overlaps(train, held, 13) == []
    leaked = " ".join(held[7].upper().split())
    train[3] += "\n" + "\n".join(leaked.split(" "))
    found = overlaps(train, held, 13)
    assert [(item.held_out, item.train) for item in found] == [(7, 3)]
    assert found[0].fraction == 1.0


def test_the_number_of_shared_runs_against_a_slow_count() -> None:
    rng = random.Random(1)
    train = [" ".join(rng.choices("abcd", k=60)) for _ in range(20)]
    held = [" ".join(rng.choices("abcd", k=rng.randint(1, 12))) for _ in range(60)]
    for n in (3, 5):
        found = {item.held_out: item for item in overlaps(train, held, n)}
        for index, text in enumerate(held):
            words = text.split()
            size_ = min(n, len(words))
            runs = [" ".join(words[k : k + size_]) for k in range(len(words) - size_ + 1)]
            shared = [run for run in runs if any(f" {run} " in f" {text_} " for text_ in train)]
            assert (found[index].shared if index in found else 0) == len(shared)
            if shared:
                assert found[index].n == size_


def test_short_texts_are_compared_as_a_whole() -> None:
    train = ["first 3 + 4 = 7 and so on"]
    found = overlaps(train, ["3 + 4 =", "3 - 4 =", "", "so on"], 8)
    assert [item.held_out for item in found] == [0, 3]


def test_a_run_never_reaches_from_one_text_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ["a b c d", "d e f", "f g"]
    train = ["x a b", "c d e", "", "f", "g d e f"]
    for size in (1, 3, 6, 1000):
        monkeypatch.setattr(ngrams, "_BATCH_UNITS", size)
        assert [(item.held_out, item.train) for item in overlaps(train, held, 4)] == [(1, 4)]
        assert [(item.held_out, item.train) for item in overlaps(train, held, 1)] == [(0, 0), (1, 1), (2, 3)]
