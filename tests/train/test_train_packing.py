"""Packing and sources: nothing is lost, nothing leaks, everything is a function of the row's number."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_models import Talk, random_documents, talk, tiny_settings

from herd.errors import InputError, SettingError
from herd.train.mixture import Mixture
from herd.train.packing import Row, pack, packed_row, stream_row
from herd.train.sources import Batches, PackedRows, Phases, Shuffled, TokenStream, row_of

LENGTHS = st.lists(st.integers(1, 32), min_size=1, max_size=60)


@given(LENGTHS)
def test_packing_puts_every_sequence_in_one_row_and_no_row_overflows(lengths):
    rows = pack(lengths, 32)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 32 for row in rows)


@given(LENGTHS)
def test_packing_wastes_less_than_half(lengths):
    rows = pack(lengths, 32)
    assert len(rows) <= 2 * -(-sum(lengths) // 32)


def test_a_sequence_longer_than_a_row_is_refused_with_its_length():
    with pytest.raises(InputError, match=r"1 of 2 sequences .* longest has 40"):
        pack([3, 40], 32)


def test_a_packed_row_trains_the_successors_that_the_mask_names():
    first = Talk([1, 2, 3, 4], [False, False, True, True], [])
    second = Talk([5, 6, 7], [False, True, True], [])
    row = packed_row([first, second], 10, pad=9)
    assert row.tokens_T.tolist() == [1, 2, 3, 4, 5, 6, 7, 9, 9, 9]
    assert row.weights_T.tolist() == [0, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert row.targets_T[row.weights_T > 0].tolist() == [3, 4, 6, 7]
    assert row.documents_T.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert row.positions_T[:7].tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_a_sequence_that_fills_its_row_keeps_its_last_target():
    row = packed_row([Talk([1, 2, 3, 4], [True] * 4, [])], 4)
    assert row.weights_T.tolist() == [1, 1, 1, 0]
    assert row.targets_T[:3].tolist() == [2, 3, 4]


def test_a_stream_row_never_predicts_across_a_border():
    row = stream_row(np.arange(10, 17), np.array([4, 4, 4, 7, 7, 8, 8]))
    assert row.tokens_T.tolist() == [10, 11, 12, 13, 14, 15]
    assert row.targets_T.tolist() == [11, 12, 13, 14, 15, 16]
    assert row.weights_T.tolist() == [1, 1, 0, 1, 0, 1]
    assert row.documents_T.tolist() == [0, 0, 0, 1, 1, 2]
    assert row.positions_T.tolist() == [0, 1, 2, 0, 1, 0]


@given(st.integers(1, 30), st.integers(1, 24), st.integers(0, 5))
def test_an_epoch_of_the_stream_holds_every_token_once(count, seq_len, seed):
    store = random_documents(count, seed)
    stream = TokenStream(store, seq_len, seed)
    rows = -(-stream.n_tokens // seq_len)
    seen = np.concatenate([row_of(stream, n).tokens_T for n in range(rows)])[: stream.n_tokens]
    assert Counter(seen.tolist()) == Counter(np.concatenate(store.documents).tolist())


def test_the_stream_keeps_documents_in_one_piece_and_in_another_order_every_epoch():
    store = random_documents(20, longest=8)
    stream = TokenStream(store, stream_length := int(store.offsets[-1]), 3)
    epochs = [row_of(stream, n).tokens_T for n in range(3)]
    assert all(len(epoch) == stream_length for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    row = row_of(stream, 0)
    pieces = [row.tokens_T[row.documents_T == d].tolist() for d in np.unique(row.documents_T)]
    assert sorted(pieces) == sorted(d.tolist() for d in store.documents)


def test_rows_are_a_function_of_their_number_whatever_was_asked_before():
    store = random_documents(30)
    one, other = TokenStream(store, 16, 1), TokenStream(store, 16, 1)
    forwards = [row_of(one, n) for n in range(200)]
    for n in np.random.default_rng(0).permutation(200):
        assert np.array_equal(row_of(other, int(n)).tokens_T, forwards[n].tokens_T)


def test_empty_documents_and_an_empty_corpus():
    store = random_documents(5)
    store.documents[2] = np.zeros(0, np.uint16)
    assert len(row_of(TokenStream(store, 8, 0), 0).tokens_T) == 8
    store.documents[:] = [np.zeros(0, np.uint16)]
    with pytest.raises(InputError, match="no tokens"):
        TokenStream(store, 8, 0)


def test_dialogues_come_back_once_an_epoch():
    rows = PackedRows([talk(3, 2 + n % 5, n) for n in range(23)], 20, seed=0)
    epochs = [[rows.index(e * rows.n_rows + n) for n in range(rows.n_rows)] for e in range(3)]
    assert all(sorted(epoch) == list(range(rows.n_rows)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_dialogues_without_a_trained_token_are_refused():
    with pytest.raises(InputError, match="no token of these dialogues is trained"):
        PackedRows([Talk([1, 2], [False, False], [])], 8, seed=0)


class _Counting:
    """A row source whose rows tell where they come from."""

    def __init__(self, name: int) -> None:
        self.name = name

    def index(self, number: int) -> int:
        return number

    def at(self, index: int):
        return (self.name, index)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5))
def test_a_mixture_has_exact_counts_and_gives_every_source_in_its_own_order(weights):
    mixture = Mixture([_Counting(n) for n in range(len(weights))], weights, period=200)
    rows = [row_of(mixture, n) for n in range(400)]
    for source, weight in enumerate(weights):
        mine = [index for name, index in rows if name == source]
        assert mine == list(range(len(mine)))
        assert abs(len(mine) - 400 * weight / sum(weights)) <= 2


@given(st.lists(st.tuples(st.integers(1, 90), st.lists(st.floats(0, 1), min_size=3, max_size=3)), max_size=4))
def test_a_mix_that_changes_goes_on_in_every_source_where_it_was(changes):
    changes = [(row, [*weights[:2], weights[2] + 0.1]) for row, weights in dict(changes).items()]
    mixture = Mixture([_Counting(n) for n in range(3)], [3, 2, 1], period=30, changes=sorted(changes))
    rows = [row_of(mixture, n) for n in range(200)]
    for source in range(3):
        mine = [index for name, index in rows if name == source]
        assert mine == list(range(len(mine)))
    for n in (0, 17, 60, 200):
        assert mixture.taken(n).tolist() == [sum(name == source for name, _ in rows[:n]) for source in range(3)]
    last = [row for row, _ in sorted(changes)][-1:] or [0]
    weights = dict(changes).get(last[0], [3, 2, 1])
    period = [name for name, _ in rows[last[0] : last[0] + 30]]
    for source in range(3):  # a whole period has the last mix exactly
        assert abs(period.count(source) - 30 * weights[source] / sum(weights)) <= 1


@pytest.mark.parametrize("changes", [[(0, [1, 1])], [(5, [1, 1]), (5, [1, 2])], [(3, [1])], [(3, [0, 0])]])
def test_changes_that_cannot_be_are_refused(changes):
    with pytest.raises(SettingError):
        Mixture([_Counting(0), _Counting(1)], [1, 1], changes=changes)


@given(st.lists(st.integers(1, 150), max_size=3), st.integers(1, 60))
def test_shuffled_rows_cross_no_border(borders, block):
    class Plain:
        def index(self, number: int) -> int:
            return number

    rows = Shuffled(Plain(), 3, block, borders)
    order = [rows.index(n) for n in range(200)]
    for border in borders:
        assert sorted(order[:border]) == list(range(border))


def test_a_mixture_is_spread_evenly():
    mixture = Mixture([_Counting(0), _Counting(1)], [3, 1])
    names = [row_of(mixture, n)[0] for n in range(1000)]
    assert all(1 <= sum(names[n : n + 8]) <= 3 for n in range(0, 1000, 8))


@pytest.mark.parametrize("weights", [[], [1.0], [0.0, 0.0], [1.0, -1.0]])
def test_weights_that_cannot_mix_are_refused(weights):
    with pytest.raises(SettingError):
        Mixture([_Counting(0), _Counting(1)], weights)


def test_phases_count_their_own_steps():
    settings = tiny_settings()
    one = Batches(TokenStream(random_documents(9, seed=1), 16, 0), settings)
    two = Batches(TokenStream(random_documents(9, seed=2), 16, 0), settings)
    phases = Phases([(0, one), (3, two)])
    assert torch.equal(phases.batch(2)[0].tokens_BT, one.batch(2)[0].tokens_BT)
    assert torch.equal(phases.batch(3)[0].tokens_BT, two.batch(0)[0].tokens_BT)
    with pytest.raises(SettingError):
        Phases([(1, one)])


def test_microbatches_hold_the_same_rows_as_the_whole_batch():
    stream = TokenStream(random_documents(20), 16, 0)
    whole = Batches(stream, tiny_settings()).batch(5)
    parts = Batches(stream, tiny_settings(microbatch_tokens=48)).batch(5)
    assert [len(b.tokens_BT) for b in parts] == [3, 1]
    assert torch.equal(torch.cat([b.tokens_BT for b in parts]), whole[0].tokens_BT)


def test_shuffled_rows_are_the_same_rows_in_another_order_that_depends_on_seed_and_number_alone() -> None:
    class Counting:
        def index(self, number: int) -> int:
            return number

        def at(self, index: int) -> Row:
            one = np.full(1, index, np.int64)
            return Row(one, one, one.astype(np.float32), one * 0, one * 0)

    def order(seed: int) -> list[int]:
        rows = Shuffled(Counting(), seed, block=50)
        return [int(row_of(rows, number).tokens_T[0]) for number in range(200)]

    first = order(3)
    assert sorted(first) == list(range(200))
    assert first != list(range(200))
    assert first == order(3) != order(4)
    assert all(number // 50 == place // 50 for place, number in enumerate(first))
    again = Shuffled(Counting(), 3, block=50)
    assert [int(row_of(again, number).tokens_T[0]) for number in reversed(range(200))] == first[::-1]
