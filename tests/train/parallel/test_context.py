"""Context ranks against one process: losses, metrics and every gradient, of all objectives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import Case, cases, numbers, one_process, packed_batches
from hypothesis import given
from hypothesis import strategies as st
from processes import run_on
from torch import Tensor
from torch import distributed as dist
from train_models import tiny_model

from herd.errors import InputError
from herd.llama.attention import Layout, attend, document_mask
from herd.llama.rope import document_starts
from herd.train.parallel.context import ContextGroup, gather_context, masked_chunks, parallelise_context
from herd.train.parallel.rows import OneShare, chunks_of, padded_length, share_context
from herd.train.parallel.stage import network
from herd.train.recompute import recompute


@given(st.integers(1, 9), st.integers(1, 60), st.integers(1, 4))
def test_the_chunks_of_all_ranks_are_the_row_and_equal_work(count: int, length: int, multiple: int) -> None:
    length = padded_length(length, count, multiple)
    places = [[*first, *second] for first, second in (chunks_of(i, count, length) for i in range(count))]
    assert sorted(place for rank in places for place in rank) == list(range(length))
    assert len({sum(rank) for rank in places}) == 1  # place t meets t + 1 keys
    assert all(len(rank) % (2 * multiple) == 0 for rank in places)


@given(st.integers(1, 5))
def test_the_parts_of_a_batch_are_the_batch(count: int) -> None:
    for batch in packed_batches():
        extras = {"teacher_ids_BTk": torch.stack([batch.tokens_BT, batch.targets_BT], -1), "one_host": torch.ones(1)}
        batch = replace(batch, extras=extras)
        parts = [share_context(batch, i, count) for i in range(count)]
        length, whole = batch.tokens_BT.shape[1], padded_length(batch.tokens_BT.shape[1], count)
        order = torch.tensor([t for i in range(count) for chunk in chunks_of(i, count, whole) for t in chunk]).argsort()
        for name in ("tokens_BT", "targets_BT", "weights_BT", "positions_BT"):
            joined = torch.cat([getattr(part, name) for part in parts], 1)[:, order]
            assert torch.equal(joined[:, :length], getattr(batch, name))
            assert not joined[:, length:].any()
        joined = torch.cat([part.extras["teacher_ids_BTk"] for part in parts], 1)[:, order]
        assert torch.equal(joined[:, :length], extras["teacher_ids_BTk"])
        assert all(part.extras["one_host"] is extras["one_host"] for part in parts)
        assert all(part.document_ids_BT.shape[1] == whole for part in parts)  # type: ignore[union-attr]


@pytest.mark.parametrize("packed", [True, False])
def test_the_chunks_for_gpus_find_what_whole_rows_find(packed: bool) -> None:
    batch, draw = packed_batches()[2], torch.Generator().manual_seed(1)
    starts_BT = document_starts(batch.document_ids_BT)
    q, k, v = (torch.randn(3, 24, heads, 8, generator=draw) for heads in (4, 2, 2))
    nothing = torch.empty(0)
    whole = attend(q, k, v, Layout(nothing, nothing, mask=document_mask(starts_BT) if packed else None))
    for index in range(3):
        chunks = chunks_of(index, 3, 24)
        places = [place for chunk in chunks for place in chunk]
        own = q[:, places]
        for chunk in masked_chunks(chunks, starts_BT if packed else None):
            found = attend(
                own[:, chunk.queries], k[:, : chunk.keys], v[:, : chunk.keys], Layout(nothing, nothing, mask=chunk.mask)
            )
            torch.testing.assert_close(found, whole[:, places][:, chunk.queries])


def test_what_cannot_be_cut_is_refused() -> None:
    batch = replace(packed_batches()[0], extras={"answer_N": torch.arange(3)})
    with pytest.raises(InputError, match="answer_N"):
        share_context(batch, 0, 2)


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_context_ranks_learn_what_one_process_learns(count: int) -> None:
    run_on(count, compare_with_one_process)


def compare_with_one_process(rank: int) -> None:
    group = ContextGroup(dist.group.WORLD)
    for case in cases():
        learns_the_same(case, group)
    learns_the_same(cases()[0], group, recomputed=True)
    # 3 tokens more in each chunk than 2 * CP asks for: rows of pairs are padded too
    for case in cases()[3:]:
        learns_the_same(case, ContextGroup(dist.group.WORLD, multiple=3))
    gathers_and_refuses(group)


def learns_the_same(case: Case, group: ContextGroup, recomputed: bool = False) -> None:
    wanted, model = one_process(case), case.model()
    if recomputed:
        recompute(network(model), "layer")
    parallelise_context(network(model), group, whole_rows=case.counts_pairs)
    objective = OneShare(case.objective, group.count) if case.counts_pairs else case.objective
    for batch, sums in zip(case.batches, wanted.numbers, strict=True):
        own = batch if case.counts_pairs else share_context(batch, group.index, group.count)
        with torch.no_grad():
            before = numbers(objective.terms(model, own))
        terms = objective.terms(model, own)
        terms.total.backward()
        assert numbers(terms) == pytest.approx(before, rel=1e-6)
        summed = all_summed(torch.tensor(list(numbers(terms).values()), dtype=torch.float64))
        torch.testing.assert_close(summed.tolist(), list(sums.values()), rtol=1e-5, atol=1e-5)
    for name, param in model.named_parameters():
        assert (param.grad is None) == (name not in wanted.gradients)
        if param.grad is not None:
            torch.testing.assert_close(all_summed(param.grad), wanted.gradients[name], rtol=2e-5, atol=2e-5)


def all_summed(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values


def gathers_and_refuses(group: ContextGroup) -> None:
    """Gathered rows are in order, their gradient is the sum over the ranks, and uncut documents are refused."""
    whole = torch.arange(8 * group.count * 3, dtype=torch.float64).view(2, 4 * group.count, 3)
    first, second = chunks_of(group.index, group.count, 4 * group.count)
    own = whole[:, [*first, *second]].requires_grad_()
    gathered = gather_context(own, group)
    assert torch.equal(gathered, whole)
    gathered.backward(whole * (group.index + 1))
    assert torch.equal(own.grad, own.detach() * sum(range(1, group.count + 1)))  # type: ignore[arg-type]
    model, batch = tiny_model(), packed_batches()[0]
    parallelise_context(model, group)
    with pytest.raises(InputError, match="share_context"):
        model(batch.tokens_BT, document_ids_BT=batch.document_ids_BT)
