"""MinHash against brute force."""

from __future__ import annotations

import itertools
import random
import unicodedata

import numpy as np
import pytest
from corpus_steps import verdicts_of
from corpus_texts import changed, clean

from herd.corpus.documents import Document
from herd.corpus.minhash import Groups, NearDuplicates, bands_for, duplicate_groups, jaccard, shingles, signatures

WORDS = [f"word{k}" for k in range(3000)]


def random_text(rng: random.Random, size: int) -> str:
    return " ".join(rng.choices(WORDS, k=size))


def family(rng: random.Random, size: int, changes: int) -> list[str]:
    base = random_text(rng, size)
    return [base, changed(base, changes, rng)]


def test_signatures_estimate_the_similarity() -> None:
    rng = random.Random(0)
    errors = []
    for changes in (1, 3, 6, 10, 15, 20) * 12:
        left, right = (shingles(text, 5) for text in family(rng, 150, changes))
        marks = signatures([left, right], 112)
        errors.append(float(np.mean(marks[0] == marks[1])) - jaccard(left, right))
    deviation = np.sqrt(np.mean(np.square(errors)))
    assert abs(np.mean(errors)) < 0.02, "biased"
    assert deviation < 1.3 * np.sqrt(0.25 / 112), "worse than 112 independent permutations"


def test_jaccard_is_that_of_sets() -> None:
    rng = random.Random(1)
    for _ in range(20):
        left, right = (shingles(text, 3) for text in family(rng, 60, 5))
        a, b = set(left.tolist()), set(right.tolist())
        assert jaccard(left, right) == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_bands_find_what_they_promise(threshold: float) -> None:
    bands, rows = bands_for(threshold, 112)
    assert bands * rows <= 112
    assert 1 - (1 - threshold**rows) ** bands >= 0.97


@pytest.mark.parametrize("threshold", [0.7, 0.8])
def test_groups_against_brute_force(threshold: float) -> None:
    rng = random.Random(2)
    texts = []
    for _ in range(60):
        base = random_text(rng, rng.randint(60, 200))
        texts.append(base)
        texts.extend(changed(base, rng.randint(1, 4), rng) for _ in range(rng.randint(0, 3)))
    sets = [shingles(text, 5) for text in texts]
    truth = Groups()
    true_pairs = []
    for left, right in itertools.combinations(range(len(sets)), 2):
        if jaccard(sets[left], sets[right]) >= threshold:
            truth.join(left, right)
            true_pairs.append((left, right))
    assert len(true_pairs) > 30
    found = duplicate_groups(sets, threshold, 112)
    recall = np.mean([found.root(left) == found.root(right) for left, right in true_pairs])
    wrong = [
        (left, right)
        for left, right in itertools.combinations(range(len(sets)), 2)
        if found.root(left) == found.root(right) and truth.root(left) != truth.root(right)
    ]
    assert recall >= 0.95
    assert wrong == []


def test_the_longest_of_a_group_stays() -> None:
    text = random_text(random.Random(3), 100)
    documents = [
        Document("short", text, "en", "s"),
        Document("other", random_text(random.Random(4), 100), "en", "s"),
        Document("long", text + " and a little more of it", "en", "s"),
    ]
    verdicts = list(verdicts_of(NearDuplicates(), documents))
    assert [verdict.keep for verdict in verdicts] == [False, True, True]
    assert "of long" in verdicts[0].detail


def test_planted_copies_are_found_and_clean_pages_stay() -> None:
    rng = random.Random(5)
    pages = clean(400)
    copies = [
        Document(f"copy-{k}", changed(page.text, 1, rng), page.lang, "web") for k, page in enumerate(pages) if k % 4 < 2
    ]
    measured = [
        jaccard(shingles(copy.text, 5), shingles(pages[4 * (k // 2) + k % 2].text, 5)) for k, copy in enumerate(copies)
    ]
    near = {copy.id for copy, likeness in zip(copies, measured, strict=True) if likeness >= 0.8}
    verdicts = dict(zip([d.id for d in pages + copies], verdicts_of(NearDuplicates(), pages + copies), strict=True))
    removed = [name for name, verdict in verdicts.items() if not verdict.keep]
    assert len(near) > 50
    assert len(removed) >= 0.95 * len(near)
    assert sum(name.startswith("clean") for name in removed) <= len(near), "only one of a pair is removed"


def test_texts_without_words_are_no_duplicates_of_each_other() -> None:
    documents = [Document(str(k), "...", "en", "s") for k in range(3)]
    assert all(verdict.keep for verdict in verdicts_of(NearDuplicates(), documents))


def test_a_copy_in_another_frame_is_found_and_trusted_pages_may_be_more_alike() -> None:
    rng = random.Random(8)
    left, right = random_text(rng, 200), ""
    while not 0.70 <= jaccard(shingles(left, 5), shingles(right, 5)) < 0.75:
        right = changed(left, rng.randint(5, 8), rng)
    for sources, kept in ((("web", "web"), 1), (("web", "world"), 1), (("world", "world"), 2)):
        pages = [Document(str(k), text, "en", sources[k]) for k, text in enumerate((left, right))]
        assert sum(verdict.keep for verdict in verdicts_of(NearDuplicates(trusted=("world",)), pages)) == kept


def test_decomposed_letters_are_the_same_letters() -> None:
    text = "Él está aquí mañana, ça va déjà mieux après l'été à Zürich"
    assert shingles(text, 5).tolist() == shingles(unicodedata.normalize("NFD", text), 5).tolist()
