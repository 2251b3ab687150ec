"""Products of training on matrix tiles, against float64 and torch's own."""

import pytest
import torch

from herd.kernels import training_products
from herd.kernels.library import LEVELS, kernels

TYPES = (torch.float32, torch.bfloat16)
SIZES = ((1, 1, 1), (33, 65, 31), (70, 100, 600), (300, 40, 5000), (64, 700, 96))


@pytest.fixture(autouse=True)
def _tiles():
    found = kernels()
    if found is None or LEVELS[found.level] != "amx":
        pytest.skip("this processor, or HERD_KERNELS, has no matrix tiles")


def draw(rows, columns, dtype, seed, turned=False):
    generator = torch.Generator().manual_seed(seed)
    if turned:
        return torch.randn(columns, rows, generator=generator).to(dtype).t()
    return torch.randn(rows, columns, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_products_round_as_float32_does(dtype, turned):
    for m, n, k in SIZES:
        a, b = draw(m, k, dtype, 0, turned[0]), draw(k, n, dtype, 1, turned[1])
        c, d = draw(m, 40, dtype, 2), draw(40, n, dtype, 3)
        before = draw(m, n, torch.float32, 4)
        sums = training_products.product(before.clone(), [(a, b), (c, d)], add=True)
        plain = training_products.product(torch.full((m, n), torch.nan, dtype=dtype), [(a, b)])
        scale = a.double().abs() @ b.double().abs()
        true = a.double() @ b.double()
        more = true + c.double() @ d.double() + before.double()
        theirs = a.float() @ b.float() + c.float() @ d.float() + before
        assert ((sums - more).abs() <= 4e-7 * (scale + 1 + c.double().abs() @ d.double().abs())).all()
        assert (sums - more).norm() <= 2 * (theirs - more).norm() + 1e-6  # three roundings where theirs have one
        slack = 4e-7 * scale if dtype == torch.float32 else 4e-7 * scale + 2**-8 * true.abs()
        assert ((plain - true).abs() <= slack).all()


def test_extremes_stay_what_they_are():
    a = torch.tensor([[1e-30, 3e38, torch.nan, 2**-60]]).t().contiguous()
    found = training_products.product(torch.empty(4, 1), [(a, torch.ones(1, 1))])
    torch.testing.assert_close(found[[0, 1, 3]], a[[0, 1, 3]], rtol=1e-6, atol=0)
    assert found[2].isnan().all()
    infinite = training_products.product(torch.empty(1, 1), [(torch.tensor([[torch.inf]]), torch.ones(1, 1))])
    assert not infinite.isfinite().all()


def test_gradients_of_several_layers_of_one_input():
    x = draw(70, 33, torch.float32, 0).view(7, 10, 33).requires_grad_()
    weights = [draw(n, 33, torch.float32, n).requires_grad_() for n in (64, 5)]
    frozen = draw(9, 33, torch.float32, 9)
    outs = training_products.linears(x, [*weights, frozen])
    wide = [each.detach().double().requires_grad_() for each in (x, *weights)]
    true = [wide[0] @ weight.t() for weight in (*wide[1:], frozen.double())]
    for out, expected in zip(outs, true, strict=True):
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    sum(out.square().sum() for out in outs).backward()
    sum(out.square().sum() for out in true).backward()
    for one, other in zip((x, *weights), wide, strict=True):
        assert (one.grad - other.grad).norm() <= 1e-6 * other.grad.norm()
    assert frozen.grad is None


def test_threads_change_no_bit():
    a, b = draw(300, 900, torch.float32, 0), draw(900, 260, torch.float32, 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(training_products.product(torch.empty(300, 260), [(a, b), (a, b)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_what_does_not_fit_is_refused():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    for out, pairs, add in (
        (torch.empty(3, 4), [(a, b)], False),
        (torch.empty(3, 5), [(a, b.bfloat16())], False),
        (torch.empty(3, 5, dtype=torch.bfloat16), [(a, b)], False),
        (torch.empty(3, 5, dtype=torch.bfloat16), [(a.bfloat16(), b.bfloat16())], True),
        (torch.empty(3, 5), [(torch.ones(3, 8)[:, ::2], torch.ones(4, 10)[:, ::2])], False),
        (torch.empty(3, 5), [(a, b), (a[:, :0], b[:0])], False),
    ):
        with pytest.raises(ValueError, match="do not give"):
            training_products.product(out, pairs, add)
