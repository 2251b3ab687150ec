"""The classifier of texts: what it learns, that it is the optimum, and what it refuses."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from herd.corpus.quality.classifier import ClassifierSettings, TextClassifier, features, train
from herd.corpus.quality.step import ModelQuality
from herd.corpus.records import Document
from herd.errors import ArtifactError, InputError, NoEffectError

SMALL = ClassifierSettings(bits=12)
PLAIN = ["river", "stone", "walk", "bread", "window", "green", "table", "winter"]
SCIENCE = ["theorem", "proof", "lemma", "integral", "energy", "atom"]
SALES = ["discount", "buy", "offer", "coupon", "sale", "cheap"]


def page(seed: int, own: list[str], share: float = 0.2) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(own if rng.random() < share else PLAIN) for _ in range(60)) + f" {seed}"


def labelled(count: int = 200) -> tuple[list[str], list[str]]:
    texts = [page(k, SCIENCE) for k in range(count)] + [page(k + 10_000, SALES) for k in range(count)]
    return texts, ["good"] * count + ["bad"] * count


def test_it_tells_what_words_can_tell_and_says_how_well() -> None:
    classifier, check = train(*labelled(), SMALL)
    assert check.accuracy > 0.97
    assert check.useful
    assert set(check.recall) == {"good", "bad"}
    assert classifier.probability(page(77_777, SCIENCE), "good") > 0.8
    assert classifier.probability(page(77_777, SALES), "good") < 0.2
    assert classifier.probabilities(["", "?!"]).sum(1) == pytest.approx(1.0)


def test_order_of_words_counts() -> None:
    there = [f"alpha beta gamma delta {k} " * 3 for k in range(150)]
    back = [f"delta gamma beta alpha {k} " * 3 for k in range(150)]
    labels = ["there"] * 150 + ["back"] * 150
    _, check = train(there + back, labels, SMALL)
    assert check.accuracy > 0.97
    with pytest.raises(NoEffectError, match="held-out"):
        train([" ".join(sorted(text.split())) for text in there] + [" ".join(sorted(t.split())) for t in back], labels)


def test_the_weights_are_where_the_loss_is_flat() -> None:
    texts, labels = labelled(40)
    settings = ClassifierSettings(bits=8, penalty=1e-2, iterations=500)
    classifier, _ = train(texts, labels, settings)
    apart = [text for text in texts if _held(text)]
    kept = [(text, label) for text, label in zip(texts, labels, strict=True) if text not in apart]
    matrix = features([text for text, _ in kept], settings).toarray().astype(np.float64)
    targets = np.array([["bad", "good"].index(label) for _, label in kept])
    per_text = 0.5 / np.bincount(targets)[targets]
    error = special.softmax(matrix @ classifier.weights.astype(np.float64) + classifier.bias, axis=1)
    error[np.arange(len(targets)), targets] -= 1
    gradient = matrix.T @ (error * per_text[:, None]) + 2 * settings.penalty * classifier.weights
    assert np.abs(gradient).max() < 1e-4


def _held(text: str) -> bool:
    from herd.corpus.quality import classifier

    return classifier._is_held_out(text)


def test_features_are_hashed_words_and_pairs_of_length_one() -> None:
    rows = features(["one two", "one two one two", "", "ONE, two!"], ClassifierSettings(bits=20))
    assert np.diff(rows.indptr).tolist() == [3, 4, 0, 3]
    assert np.sqrt((rows.toarray() ** 2).sum(1)) == pytest.approx([1, 1, 0, 1])
    assert (rows[[0]] != rows[[3]]).nnz == 0


def test_training_again_gives_the_same_and_a_file_gives_it_back(tmp_path: Path) -> None:
    first, again = train(*labelled(), SMALL)[0], train(*labelled(), SMALL)[0]
    assert np.array_equal(first.weights, again.weights)
    first.save(tmp_path / "c.npz")
    back = TextClassifier.load(tmp_path / "c.npz")
    text = page(5, SALES)
    assert np.array_equal(back.probabilities([text]), first.probabilities([text]))
    assert back.settings == first.settings
    whole = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    for path in (tmp_path / "c.npz", tmp_path / "absent.npz"):
        with pytest.raises(ArtifactError, match="no classifier of texts"):
            TextClassifier.load(path)


def test_more_than_two_labels() -> None:
    texts, labels = labelled()
    texts, labels = texts + [page(k + 50_000, ["the"], 0.0) for k in range(200)], labels + ["plain"] * 200
    classifier, check = train(texts, labels, SMALL)
    assert check.accuracy > 0.9
    assert list(classifier.labels) == ["bad", "good", "plain"]


def test_what_cannot_be_learnt_is_refused() -> None:
    texts, labels = labelled()
    with pytest.raises(InputError, match="two labels"):
        train(texts, ["good"] * len(texts))
    with pytest.raises(InputError, match="2 texts are labelled 'rare'"):
        train([*texts, "a", "b"], [*labels, "rare", "rare"])
    with pytest.raises(InputError, match="labels"):
        train(texts, labels[:-1])
    rng = random.Random(0)
    with pytest.raises(NoEffectError, match="held-out"):
        train([page(k, PLAIN) for k in range(400)], [rng.choice(["a", "b"]) for _ in range(400)], SMALL)


def test_the_step_asks_the_classifier_of_the_language() -> None:
    step = ModelQuality({"en": train(*labelled(), SMALL)[0]}, label="good")
    good, bad = page(3, SCIENCE), page(3, SALES)
    assert step.judge(Document("1", good, "en", "web")).keep
    verdict = step.judge(Document("2", bad, "en", "web"))
    assert (verdict.keep, verdict.reason) == (False, "not_good")
    assert "at least 0.50" in verdict.detail
    assert step.judge(Document("3", bad, "de", "web")).keep
    assert not ModelQuality({"": step.by_lang["en"]}, "good").judge(Document("4", bad, "de", "web")).keep
    with pytest.raises(InputError, match="no label 'fine'"):
        ModelQuality(step.by_lang, "fine").judge(Document("5", bad, "en", "web"))
