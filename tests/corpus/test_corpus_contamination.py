"""The index of benchmarks: what of it a corpus has, whatever the text's shape; and the documents that have it."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.corpus.contamination import ContaminationIndex, Example, examples_of
from herd.corpus.words import units
from herd.errors import ArtifactError, InputError

WORDS = ["amber", "basket", "candle", "dragon", "engine", "forest", "garden", "harbor", "island", "jacket"]


def sentence(seed: int, length: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) + str(rng.randrange(100)) for _ in range(length))


def index_of(*texts: str, **settings: int) -> ContaminationIndex:
    return ContaminationIndex.build([Example("bench", str(k), text) for k, text in enumerate(texts)], **settings)


def naive_coverage(example: str, corpus: list[str], n: int) -> float:
    """Token by token, in plain Python."""
    tokens = re.findall(r"[a-z0-9]+", example.lower())
    known = set()
    for text in corpus:
        found = re.findall(r"[a-z0-9]+", text.lower())
        known |= {tuple(found[k : k + n]) for k in range(len(found) - n + 1)}
    covered = [False] * len(tokens)
    for k in range(len(tokens) - n + 1):
        if tuple(tokens[k : k + n]) in known:
            covered[k : k + n] = [True] * n
    return sum(covered) / len(tokens) if tokens else 0.0


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=14), max_size=5), st.integers(1, 4), st.integers(0, 99))
def test_coverage_is_what_counting_by_hand_gives(texts: list[list[str]], n: int, seed: int) -> None:
    rng = random.Random(seed)
    examples = [" ".join(rng.choice("abc") for _ in range(rng.randrange(1, 12))) for _ in range(3)] + ["a b c a b c"]
    index, corpus = index_of(*examples, n=n, common=99), [" ".join(text) for text in texts]
    found = index.coverage(index.scan(corpus))
    assert found == pytest.approx([naive_coverage(example, corpus, n) for example in examples])


def test_a_text_is_found_however_it_is_wrapped_cased_and_pointed() -> None:
    question = sentence(1, 40)
    index = index_of(question, sentence(2, 40))
    words = question.split()
    wrapped = "\n".join(" ".join(words[k : k + 8]) for k in range(0, 40, 8))
    for told in (question, wrapped, question.upper(), ", ".join(words), "«" + question + "»!"):
        page = f"{sentence(3, 30)}\n{told}\n{sentence(4, 30)}"
        assert index.coverage(index.scan([page])) == pytest.approx([1.0, 0.0])
        (found,) = index.found_in(page)
        assert (found.benchmark, found.id, found.share) == ("bench", "0", 1.0)


def test_a_run_never_crosses_two_texts_and_workers_findings_join() -> None:
    question = sentence(5, 20)
    words = question.split()
    index = index_of(question)
    halves = [" ".join(words[:10]), " ".join(words[10:])]
    apart = index.scan(halves)
    assert index.coverage(apart) == pytest.approx([1.0])
    assert not index.scan([" ".join(words[:7]), " ".join(words[7:14]), " ".join(words[14:])]).any()
    assert np.array_equal(index.scan(halves[:1]) | index.scan(halves[1:]), apart)
    assert np.count_nonzero(apart) == 6  # of 13 runs: three in each half


def test_the_words_of_the_prompt_itself_are_not_counted() -> None:
    asked = "which of the following statements is true about the"
    index = index_of(*(f"{asked} {sentence(k, 20)}" for k in range(30)), common=20)
    assert not index.scan([asked]).any()
    assert index_of(*(f"{asked} {sentence(k, 20)}" for k in range(19)), common=20).scan([asked]).any()


def test_short_examples_are_told_apart_and_an_index_of_nothing_is_refused() -> None:
    index = index_of("Paris", sentence(1, 9))
    assert index.too_short.tolist() == [True, False]
    assert index.coverage(index.scan(["Paris", sentence(1, 9)])) == pytest.approx([0.0, 1.0])
    with pytest.raises(InputError, match="no example of the benchmarks has 8 words"):
        index_of("Paris", "")


def test_part_of_an_example_is_its_share() -> None:
    question = sentence(7, 40)
    index = index_of(question)
    half = " ".join(question.split()[:20])
    assert index.found_in(half, 0.5)[0].share == pytest.approx(0.5)
    assert not index.found_in(half, 0.51)
    assert not index.found_in("too short")


def test_a_saved_index_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    index = index_of(sentence(1, 30), sentence(2, 12), "naïve ไทย")
    path = tmp_path / "index.npz"
    index.save(path)
    again = ContaminationIndex.load(path)
    assert np.array_equal(again.hashes, index.hashes)
    assert again.found_in(sentence(1, 30)) == index.found_in(sentence(1, 30)) != []
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArtifactError, match="no index of benchmarks"):
            ContaminationIndex.load(path)
    with pytest.raises(ArtifactError, match="no index of benchmarks"):
        ContaminationIndex.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("part", ["runs", "starts", "tokens", "hashes", "ids"])
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "index.npz"
    index_of(sentence(1, 30), sentence(2, 12)).save(path)
    with np.load(path) as stored:
        parts = dict(stored)
    parts[part] = parts[part][::-1] + 7 if part == "runs" else parts[part][:-1]
    np.savez_compressed(path, **parts)
    with pytest.raises(ArtifactError, match="do not fit together"):
        ContaminationIndex.load(path)


def test_records_of_benchmarks_become_examples() -> None:
    rows = [{"question": "What?", "choices": {"text": ["this", "that"]}}, {"id": "x", "question": "Who?"}]
    found = list(examples_of(rows, "arc", ["question", "choices"]))
    assert found == [Example("arc", "0", "What?\nthis\nthat"), Example("arc", "x", "Who?")]
    with pytest.raises(InputError, match="record 0 of arc has none of the fields answer"):
        list(examples_of(rows, "arc", ["answer"]))


def test_random_texts_are_not_found() -> None:
    index = index_of(*(sentence(k, 50) for k in range(40)))
    assert not index.scan(sentence(k, 200) for k in range(100, 140)).any()
    assert all(a != b for a, b in pairwise(units(sentence(1, 50)).hashes))
