"""Attention over pages against its naive reference, and that nothing beside a query changes a bit of its result."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.kernels import library, pass_reference
from herd.kernels.attention import E4M3, PageTensors, paged_attention
from herd.kernels.attention_plan import BLOCK, Sequence, plan
from herd.kernels.e4m3 import quantize_rows

PAGE, N_PAGES = 16, 400
SHAPES = [(4, 2, 16), (8, 2, 64), (4, 4, 32), (4, 1, 6), (2, 2, 128), (12, 1, 20)]  # H G K
TYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, E4M3),
    (torch.bfloat16, E4M3),
]


def draw_pages(groups, size, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(N_PAGES, groups, PAGE, size, generator=generator) for _ in range(2))
    if dtype == E4M3:
        (keys, k_scale), (values, v_scale) = quantize_rows(keys), quantize_rows(values)
        return PageTensors(keys, values, k_scale.squeeze(-1).contiguous(), v_scale.squeeze(-1).contiguous())
    return PageTensors(keys.to(dtype), values.to(dtype))


def draw_queries(sequences, heads, size, dtype, seed=1):
    n_tokens = sum(s.stop - s.start for s in sequences)
    return torch.randn(n_tokens, heads, size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tables(rng):
    """Tables of random pages, each page in one of them only."""
    order = iter(rng.permutation(N_PAGES).tolist())
    return lambda length: [next(order) for _ in range(-(-length // PAGE))]


def mixed_sequences(seed=0):
    """Families of single tokens that share pages, parts of prompts, and one beyond a split."""
    table = tables(np.random.default_rng(seed))
    common = table(2 * BLOCK)
    deeper = common + table(BLOCK)
    family = [Sequence(149 + i, 150 + i, common + table(2 * PAGE)) for i in range(3)]
    family += [Sequence(3 * BLOCK + i, 3 * BLOCK + i + 1, deeper + table(PAGE)) for i in range(2)]
    prompts = [(0, 37), (63, 64), (10, 90), (1010, 1040), (0, 1), (1799, 1800)]
    return family + [Sequence(start, stop, table(stop)) for start, stop in prompts]


@pytest.mark.parametrize(("dtype", "cache_dtype"), TYPES)
def test_attention_equals_the_reference(level, dtype, cache_dtype):
    sequences = mixed_sequences()
    for heads, groups, size in SHAPES:
        pages = draw_pages(groups, size, cache_dtype)
        q = draw_queries(sequences, heads, size, dtype)
        found = paged_attention(q, pages, plan(sequences, PAGE, heads // groups))
        expected = pass_reference.paged_attention(q.float(), pages, sequences)
        assert found.dtype == dtype
        # bfloat16: the result is rounded once; on AMX weights are, too
        bound = {"rtol": 1e-5, "atol": 3e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 2**-7}
        torch.testing.assert_close(found.float(), expected, **bound)


@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([1, 2, 3, 4]), st.sampled_from([2, 8, 30, 64]))
@settings(max_examples=25, deadline=None)
def test_random_tables_equal_torch(seed, count, per_group, size):
    if library.kernels() is None:
        return  # said by the tests above
    rng = np.random.default_rng(seed)
    table = tables(rng)
    sequences = []
    for _ in range(count):
        stop = int(rng.integers(1, 200))
        start = stop - int(rng.integers(1, stop + 1)) if rng.random() < 0.5 else stop - 1
        sequences.append(Sequence(start, stop, table(stop)))
    pages = draw_pages(2, size, torch.float32, seed)
    q = draw_queries(sequences, 2 * per_group, size, torch.float32, seed)
    found = paged_attention(q, pages, plan(sequences, PAGE, per_group))
    place = 0
    for s in sequences:
        n, (k, v) = s.stop - s.start, (x[list(s.pages)].transpose(0, 1).flatten(1, 2)[:, : s.stop] for x in pages[:2])
        mask = torch.arange(s.stop) <= torch.arange(s.start, s.stop)[:, None]
        part = torch.nn.functional.scaled_dot_product_attention(
            q[place : place + n].transpose(0, 1)[None], k[None], v[None], attn_mask=mask, enable_gqa=True
        )[0]
        torch.testing.assert_close(found[place : place + n], part.transpose(0, 1), rtol=1e-5, atol=3e-6)
        place += n


@pytest.mark.parametrize(("dtype", "cache_dtype"), TYPES)
def test_a_query_depends_on_nothing_beside_it(level, threads, dtype, cache_dtype):
    """Alone, in any company, with shared pages or its own copies of them, in pieces, on any number of threads."""
    sequences = mixed_sequences(3)
    for heads, groups, size in [(8, 2, 64), (4, 4, 32), (4, 1, 6)]:
        pages = draw_pages(groups, size, cache_dtype)
        q = draw_queries(sequences, heads, size, dtype)
        threads(1)
        whole = paged_attention(q, pages, plan(sequences, PAGE, heads // groups))
        threads(3)
        assert torch.equal(whole, paged_attention(q, pages, plan(sequences, PAGE, heads // groups))), "threads"
        place = 0
        for s in sequences:
            for position in sorted({s.start, (s.start + s.stop) // 2, s.stop - 1}):
                token = place + position - s.start
                one = [replace(s, start=position, stop=position + 1)]
                alone = paged_attention(q[token : token + 1], pages, plan(one, PAGE, heads // groups))
                assert torch.equal(alone[0], whole[token]), ("alone", s.start, s.stop, position)
            place += s.stop - s.start


def test_splits_change_no_bit(level, threads):
    """One long sequence: its splits are tasks of their own where there are threads for them."""
    table = tables(np.random.default_rng(5))
    sequences = [Sequence(3 * 1024 + 40, 3 * 1024 + 44, table(3 * 1024 + 44))]
    for dtype in (torch.float32, torch.bfloat16):
        pages, q = draw_pages(1, 64, dtype), draw_queries(sequences, 4, 64, dtype)
        found = []
        for n in (1, 2, 5):
            threads(n)
            found.append(paged_attention(q, pages, plan(sequences, PAGE, 4)))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])


def test_rubbish_behind_a_sequence_and_in_others_stays_there(level):
    table = tables(np.random.default_rng(7))
    sequences = [Sequence(20, 21, table(21)), Sequence(5, 30, table(30))]
    for dtype in (torch.float32, torch.bfloat16):
        pages, q = draw_pages(2, 32, dtype), draw_queries(sequences, 4, 32, dtype)
        expected = paged_attention(q, pages, plan(sequences, PAGE, 2))
        used = torch.zeros(N_PAGES, PAGE, dtype=torch.bool)
        for s in sequences:
            for position in range(s.stop):
                used[s.pages[position // PAGE], position % PAGE] = True
        for tensor in pages[:2]:
            tensor.transpose(1, 2)[~used] = torch.nan
        assert torch.equal(paged_attention(q, pages, plan(sequences, PAGE, 2)), expected)
        pages.values[sequences[1].pages[0], :, 3] = torch.nan
        found = paged_attention(q, pages, plan(sequences, PAGE, 2))
        assert torch.equal(found[0], expected[0])
        assert found[1:].isnan().all()


def test_large_scores_and_those_that_are_not_finite(level):
    sequences = [Sequence(0, 70, list(range(5)))]
    for dtype in (torch.float32, torch.bfloat16):
        pages, q = draw_pages(1, 32, dtype), draw_queries(sequences, 2, 32, dtype)
        q[10:20] *= 1000
        expected = pass_reference.paged_attention(q.float(), pages, sequences)
        found = paged_attention(q, pages, plan(sequences, PAGE, 2))
        torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
        q[30] = torch.nan
        found = paged_attention(q, pages, plan(sequences, PAGE, 2))
        assert found[30].isnan().all()
        assert found[:30].isfinite().all()


def test_a_beginning_in_common_is_read_once():
    table = tables(np.random.default_rng(1))
    common, deeper = table(2 * BLOCK), table(BLOCK)
    sequences = [Sequence(199 + i, 200 + i, common + deeper + table(PAGE)) for i in range(2)]
    sequences += [Sequence(150, 151, common + table(2 * PAGE)), Sequence(10, 11, table(11))]
    planned = plan(sequences, PAGE, 4)
    assert planned.blocks[:, :2].tolist() == [[0, 3], [3, 1]]
    read = planned.segments[:4, [0, 1, 3, 4]].tolist()
    assert read == [[0, 3, 0, 128], [0, 2, 128, 192], [0, 1, 192, 200], [1, 1, 192, 201]]
    assert planned.segments[4, [0, 1, 3, 4]].tolist() == [2, 1, 128, 151]


def test_sizes_that_do_not_fit_are_refused(compiled):
    sequences = [Sequence(0, 3, [1])]
    pages, q, planned = (
        draw_pages(2, 8, torch.float32),
        draw_queries(sequences, 4, 8, torch.float32),
        plan(sequences, PAGE, 2),
    )
    for spoilt in (
        (q[:, :3], pages, planned),
        (q[:2], pages, planned),
        (q.bfloat16(), pages, planned),
        (q[..., :6], pages, planned),
        (q, PageTensors(pages.keys.to(E4M3), pages.values.to(E4M3)), planned),
        (q, PageTensors(pages.keys[:1], pages.values[:1]), planned),
        (q.double(), pages, planned),
    ):
        with pytest.raises(ValueError, match=r"pages|plan"):
            paged_attention(*spoilt)
