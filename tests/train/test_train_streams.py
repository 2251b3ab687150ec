"""Stores of sections and windows: nothing lost, nothing twice, told before it is read; batches made ahead."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_models import Documents, random_documents, tiny_settings

from herd.errors import InputError
from herd.train import order
from herd.train.ahead import ReadAhead
from herd.train.batch import Part
from herd.train.order import DocumentOrder
from herd.train.sources import Batches, TokenStream, row_of


class Sections:
    """A SectionedStore out of lists; `told` is what was expected, `read` what was opened."""

    def __init__(self, parts: list[Documents]) -> None:
        self.parts, self.told, self.opened = parts, [], []

    @property
    def section_tokens(self) -> np.ndarray:
        return np.asarray([part.offsets[-1] for part in self.parts])

    def section(self, index: int) -> Documents:
        self.opened.append(index)
        return self.parts[index]

    def expect(self, section: int, start: int, end: int) -> None:
        self.told.append((section, start, end))


def marked(count: int, seed: int) -> Documents:
    """Documents whose every token is another number, empty ones among them."""
    rng, found, at = np.random.default_rng(seed), [], 100_000 * seed
    for _ in range(count):
        size = int(rng.integers(0, 30))
        found.append(np.arange(at, at + size, dtype=np.uint32))
        at += size
    return Documents([*found, np.arange(at, at + 5, dtype=np.uint32)])


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(6, 24), st.integers(20, 200), st.integers(0, 3))
def test_an_epoch_holds_every_token_once_whatever_the_sections_and_windows(counts, seq_len, window, seed):
    store = Sections([marked(count, 1 + n) for n, count in enumerate(counts)])
    stream = TokenStream(store, seq_len, seed)
    stream._order.window = window
    rows = -(-stream.n_tokens // seq_len)
    for epoch in range(2):
        tokens = np.concatenate([row_of(stream, n).tokens_T for n in range((epoch + 1) * rows + 1)])
        seen = tokens[epoch * stream.n_tokens : (epoch + 1) * stream.n_tokens]
        assert Counter(seen.tolist()) == Counter(
            token for part in store.parts for one in part.documents for token in one.tolist()
        )


@given(st.integers(1, 15), st.integers(10, 100), st.integers(0, 3))
def test_documents_of_a_window_are_read_together_and_told_before(count, window, seed):
    store = Sections([marked(count, 1), marked(count + 3, 2)])
    found = DocumentOrder(store, seed, window)
    for epoch in range(2):
        offset, spans = 0, []
        while offset < found.n_tokens:
            place = found.place(epoch, offset)
            start = int(place.store.offsets[place.document])
            mine = (place.section, start // window)
            assert (mine[0], mine[1] * window) in {(section, begin) for section, begin, _ in store.told}
            if spans[-1:] != [mine]:
                spans.append(mine)
            offset += place.left
        assert len(spans) == len(set(spans))  # no window is left and come back to
        assert [section for section, _ in spans] == sorted((s for s, _ in spans), key=[s for s, _ in spans].index)


def test_what_is_told_is_this_window_and_the_next():
    store = Sections([random_documents(40, 1), random_documents(40, 2)])
    found = DocumentOrder(store, 0, window=100)
    found.place(0, 0)
    assert len(store.told) == 2
    found.place(0, 1)
    assert len(store.told) == 2


def test_a_store_of_one_section_and_window_is_the_whole_shuffled():
    documents = random_documents(30)
    assert int(documents.offsets[-1]) < order.WINDOW
    one, other = TokenStream(documents, 16, 7), TokenStream(Sections([documents]), 16, 7)
    for n in range(100):
        assert np.array_equal(row_of(one, n).tokens_T, row_of(other, n).tokens_T)


@pytest.mark.parametrize("origin", [0, 5, 64, 1000])
def test_a_stream_goes_on_where_another_row_length_stopped(origin):
    documents = random_documents(30)
    whole = TokenStream(documents, 8, 1)
    expected = np.concatenate([row_of(whole, n).tokens_T for n in range(400)])[origin : origin + 120]
    late = TokenStream(documents, 24, 1, origin=origin)
    assert np.array_equal(np.concatenate([row_of(late, n).tokens_T for n in range(5)]), expected)


def test_sections_without_tokens():
    with pytest.raises(InputError, match="no tokens"):
        TokenStream(Sections([Documents([np.zeros(0, np.uint16)])]), 8, 0)
    empty = Documents([np.zeros(0, np.uint16)])
    stream = TokenStream(Sections([empty, random_documents(4), empty]), 8, 0)
    assert all(len(row_of(stream, n).tokens_T) == 8 for n in range(30))


def test_batches_made_ahead_are_the_same_and_made_by_one_thread():
    settings = tiny_settings(microbatch_tokens=32)
    plain = Batches(TokenStream(random_documents(20), 16, 0), settings)
    makers = set()

    class Watched:
        def batch(self, step, part):
            makers.add(threading.get_ident())
            return plain.batch(step, part)

    ahead = ReadAhead(Watched())
    for step, part in [
        (0, Part(0, 1)),
        (1, Part(0, 1)),
        (2, Part(0, 1)),
        (9, Part(0, 1)),
        (3, Part(1, 2)),
        (4, Part(1, 2)),
    ]:
        for one, other in zip(ahead.batch(step, part), plain.batch(step, part), strict=True):
            assert torch.equal(one.tokens_BT, other.tokens_BT)
            assert torch.equal(one.weights_BT, other.weights_BT)
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_an_error_comes_with_the_step_that_it_belongs_to():
    class Failing:
        def batch(self, step, part):
            if step == 2:
                raise InputError("no more")
            return []

    ahead = ReadAhead(Failing())
    assert ahead.batch(0) == ahead.batch(1) == []
    with pytest.raises(InputError, match="no more"):
        ahead.batch(2)
