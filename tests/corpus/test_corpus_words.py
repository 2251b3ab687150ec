"""Words in every script."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.corpus.words import count_words, growing_ngrams, ngram_hashes, readable_fraction, units


@given(st.text(alphabet="abcdefghij ABC.,!\n0123456789", max_size=300))
def test_latin_words_are_those_of_a_regular_expression(text: str) -> None:
    expected = re.findall(r"[a-z0-9]+", text.lower())
    found = units(text)
    assert count_words(text) == len(found) == len(expected)
    assert found.lengths.tolist() == [len(word) for word in expected]
    same = dict(zip(expected, found.hashes.tolist(), strict=True))
    assert [same[word] for word in expected] == found.hashes.tolist()
    assert len(set(same.values())) == len(same)


def test_devanagari_vowel_signs_belong_to_their_word() -> None:
    text = "नमस्ते दुनिया, यह हिन्दी है।"
    assert count_words(text) == 5
    assert len(re.findall(r"\w+", text)) > 5  # what a naive pattern makes of it


def test_thai_is_counted_without_spaces() -> None:
    sentence = "แม้ว่าการเปลี่ยนไปใช้ระบบดิจิตัลเป็นสิ่งที่ไม่เคยมีมาก่อนในสหรัฐ"  # 15 to 17 words, by hand
    assert 12 <= count_words(sentence) <= 20
    assert count_words("ก็") == 1


def test_thai_is_cut_the_same_way_anywhere() -> None:
    sentence = "สะพานเก่าถูกสร้างขึ้นเมื่อสิบปีก่อนโดยผู้คนจากหุบเขา"
    alone = units(sentence).hashes
    inside = units(f"ในฤดูหนาว {sentence} ซ่อมเรือ").hashes
    assert any(np.array_equal(inside[k : k + len(alone)], alone) for k in range(len(inside) - len(alone) + 1))


def test_arithmetic_signs_tell_texts_apart_but_are_no_words() -> None:
    assert not np.array_equal(units("3 + 4").hashes, units("3 - 4").hashes)
    assert count_words("3 + 4 = 7") == 3


def test_whole_tokens_keep_a_url_together() -> None:
    text = "see https://example.org/a/b?c=1 now"
    assert len(units(text, whole_tokens=True)) == 3
    assert len(units(text)) > 6


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 8))
def test_equal_runs_have_equal_hashes_and_others_differ(words: list[str], n: int) -> None:
    hashes = ngram_hashes(units(" ".join(words)).hashes, n)
    size = min(n, len(words))
    runs = [tuple(words[k : k + size]) for k in range(len(words) - size + 1)] if words else []
    assert len(hashes) == len(runs)
    assert len(set(hashes.tolist())) == len(set(runs))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("letters only", 1.0, 1.0), ("*** --- ###", 0.0, 0.0), ("नमस्ते दुनिया", 1.0, 1.0), ("", 1.0, 1.0)],
)
def test_readable_fraction(text: str, low: float, high: float) -> None:
    assert low <= readable_fraction(text) <= high


def test_growing_ngrams_are_the_ngrams_of_each_length() -> None:
    hashes = units("one two three four five one two three 7 + 8").hashes
    grown = dict(growing_ngrams(hashes, 30))
    assert list(grown) == list(range(1, len(hashes) + 1))
    for n, runs in grown.items():
        assert (runs == ngram_hashes(hashes, n)).all()
    assert list(growing_ngrams(hashes[:0], 3)) == []
