"""The Triton kernels as a CUDA device runs them: the interpreter's cases, large shapes, FP8 matrix units, a graph."""

from __future__ import annotations

import pytest
import torch
from gpu_models import CPU, CUDA, ON_CUDA

from herd.kernels import e4m3, linear_fp8, reference
from herd.kernels.attention import PageTensors
from herd.kernels.gpu import problem
from herd.weights.fp8 import Fp8Linear

pytestmark = ON_CUDA


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(CUDA)


def test_they_work_here_or_say_why_not():
    assert problem(CUDA) == ""
    assert problem(CPU) == "cpu is no CUDA device"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("m", [1, 5, 33, 300])
def test_products_equal_their_reference(m, dtype):
    for n, k in ((2048, 4096), (77, 1000), (4096, 128)):
        weight, scale = e4m3.quantize_rows(draw(n, k, seed=1))
        x = (draw(m, k, seed=2) * draw(m, 1, seed=3).exp()).to(dtype)
        for how in ({"bound": None}, {"bound": 2.0}, {"weight_only": True}):
            found, expected = linear_fp8(x, weight, scale, **how), reference.linear_fp8(x.float(), weight, scale, **how)
            error = (found.float() - expected).abs() / expected.abs().amax(1, keepdim=True)
            assert found.dtype == dtype
            assert float(error.max()) <= (1e-4 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps), (n, k, how)


def test_every_code_of_e4m3_is_exact():
    weight = torch.zeros(256, 64, device=CUDA).to(torch.float8_e4m3fn)
    weight[:, 0] = torch.arange(256, dtype=torch.uint8, device=CUDA).view(torch.float8_e4m3fn)
    ones = torch.ones(256, 1, device=CUDA)
    for rows in (1, 64):
        x = torch.full((rows, 64), 448.0, device=CUDA)
        for weight_only in (False, True):
            found = linear_fp8(x, weight, ones, weight_only=weight_only)
            expected = (weight[:, 0].float() * 448.0).expand(rows, 256)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_rows_are_quantised_to_the_bits_of_torch():
    from herd.kernels.gpu import products

    x = draw(64, 5000, seed=1) * torch.logspace(-9, 3, 5000, device=CUDA)
    x[3, 17] = torch.nan
    for each in (x, x.bfloat16()):
        for bound in (None, 1200.0, 20.0):
            values, scale = e4m3.quantize_rows(each, bound)
            found, found_scale = products.quantize_rows(each, bound)
            torch.testing.assert_close(found_scale, scale, rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(found.float(), values.float(), rtol=0, atol=0, equal_nan=True)


def paged(lengths, groups, page, size, dtype):
    each = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(each), generator=torch.Generator().manual_seed(1)).to(CUDA)
    tables = torch.zeros(len(lengths), max(each), dtype=torch.int32, device=CUDA)
    for row, count in enumerate(each):
        tables[row, :count] = order[sum(each[:row]) : sum(each[:row]) + count]
    keys, values = (draw(sum(each), groups, page, size, seed=seed).to(dtype) for seed in (2, 3))
    return PageTensors(keys, values), tables


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_pages(dtype):
    from herd.kernels.gpu.attention import paged_attention

    lengths, groups, size = (1, 700, 5000), 2, 128
    pages, tables = paged(lengths, groups, 16, size, dtype)
    sequence = torch.arange(3, dtype=torch.int32, device=CUDA)
    positions = torch.tensor(lengths, dtype=torch.int32, device=CUDA) - 1
    q = draw(3, 8, size, seed=5).to(dtype)
    found = paged_attention(q, pages, tables, sequence, positions)
    for row, length in enumerate(lengths):
        keys, values = (
            x[tables[row].long()].transpose(1, 2).reshape(-1, groups, size)[:length] for x in (pages.keys, pages.values)
        )
        plain = torch.nn.functional.scaled_dot_product_attention(
            q[row][:, None].double(), *(x.repeat_interleave(4, 1).transpose(0, 1).double() for x in (keys, values))
        )
        exact = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found[row].double(), plain[:, 0], rtol=exact, atol=exact)


def test_a_captured_step_gives_what_the_step_gives():
    from herd.kernels.gpu.attention import paged_attention
    from herd.kernels.gpu.graphs import Captured

    pages, tables = paged((900, 900), 2, 16, 64, torch.bfloat16)
    wide = torch.nn.Linear(512, 512, bias=False, device=CUDA)
    layer = Fp8Linear.of(wide).to(CUDA).eval()

    def step(q, tables, positions):
        sequence = torch.arange(len(q), dtype=torch.int32, device=CUDA)
        return layer(paged_attention(q, pages, tables, sequence, positions).flatten(1))

    def inputs(seed, last):
        positions = torch.full((2,), last, dtype=torch.int32, device=CUDA)
        return {"q": draw(2, 8, 64, seed=seed).bfloat16(), "tables": tables, "positions": positions}

    captured = Captured(step, inputs(0, 3))
    for seed, last in ((1, 40), (2, 899), (3, 0)):
        with torch.no_grad():
            assert torch.equal(captured(**inputs(seed, last)), step(**inputs(seed, last)))
    with pytest.raises(ValueError, match="was captured"):
        captured(q=draw(3, 8, 64), tables=tables, positions=torch.zeros(2, dtype=torch.int32, device=CUDA))
