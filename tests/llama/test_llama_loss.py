"""Chunked losses equal the naive ones in value and gradient, and never hold more than a chunk of logits."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from herd.errors import InputError
from herd.llama import reference
from herd.llama.loss import chunked_cross_entropy, token_logprobs

N, D, V = 50, 12, 31


def draw(dtype=torch.float64, n=N):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, upstream = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype) for shape in ((n, D), (V, D), (n,))
    )
    targets = torch.randint(0, V, (n,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, upstream


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_cross_entropy_equals_the_naive_one(chunk, weighted):
    hidden, weight, targets, upstream = draw()
    weights = (upstream.abs() * (upstream > -0.5)) if weighted else None  # some rows count nothing
    found = chunked_cross_entropy(hidden, weight, targets, weights, chunk=chunk)
    expected = reference.cross_entropy(hidden, weight, targets, weights)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found / 3, (hidden, weight)),
        torch.autograd.grad(expected / 3, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_logprobs_equal_the_naive_ones(chunk):
    hidden, weight, targets, upstream = draw()
    found = token_logprobs(hidden, weight, targets, chunk=chunk)
    expected = reference.token_logprobs(hidden, weight, targets)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (hidden, weight), upstream),
        torch.autograd.grad(expected, (hidden, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_by_finite_differences():
    hidden, weight, targets, upstream = draw(n=6)
    assert torch.autograd.gradcheck(
        lambda h, w: chunked_cross_entropy(h, w, targets, upstream.abs(), chunk=4), (hidden, weight)
    )
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, chunk=4), (hidden, weight))
    candidates = torch.tensor([[0, 3, 3], [1, 2, 5], [30, 0, 1], [2, 2, 2], [9, 8, 7], [4, 5, 6]])  # some twice
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, candidates, chunk=4), (hidden, weight))


def test_candidates_are_taken_from_one_distribution():
    hidden, weight, _, _ = draw()
    every = torch.arange(V).expand(N, V)
    torch.testing.assert_close(token_logprobs(hidden, weight, every).exp().sum(1), torch.ones(N).double())


def test_the_loss_is_minus_the_logprobs():
    hidden, weight, targets, _ = draw()
    total = chunked_cross_entropy(hidden, weight, targets, chunk=8)
    torch.testing.assert_close(total, -token_logprobs(hidden, weight, targets, chunk=8).sum())


def test_bf16_sums_in_fp32():
    hidden, weight, targets, _ = draw(torch.bfloat16)
    found = chunked_cross_entropy(hidden, weight, targets, chunk=8)
    found.backward()
    assert found.dtype == torch.float32
    assert token_logprobs(hidden, weight, targets).dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    wide_hidden, wide_weight = (x.detach().float().requires_grad_() for x in (hidden, weight))
    expected = reference.cross_entropy(wide_hidden, wide_weight, targets)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    torch.testing.assert_close(weight.grad.float(), wide_weight.grad, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("loss", [chunked_cross_entropy, token_logprobs])
def test_never_more_than_a_chunk_of_logits(loss):
    n, d, v, chunk = 600, 8, 500, 16
    hidden = torch.randn(n, d, requires_grad=True)
    weight = torch.randn(v, d, requires_grad=True)
    targets = torch.randint(0, v, (n,))
    with Largest() as seen:
        loss(hidden, weight, targets, chunk=chunk).sum().backward()
    assert chunk * v <= seen.elements < 2 * chunk * v
    with Largest() as naive:
        reference.cross_entropy(hidden, weight, targets).backward()
    assert naive.elements == n * v  # the watch does see what it should


def test_only_what_is_asked_for_is_computed():
    hidden, weight, targets, _ = draw()
    frozen = weight.detach()
    chunked_cross_entropy(hidden, frozen, targets).backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, weight, targets).requires_grad


def test_rows_that_do_not_count_may_have_any_target():
    hidden, weight, targets, _ = draw()
    weights = torch.ones(N)
    weights[10:] = 0
    bad = targets.clone()
    bad[10:] = -100
    torch.testing.assert_close(
        chunked_cross_entropy(hidden, weight, bad, weights), chunked_cross_entropy(hidden, weight, targets, weights)
    )
    nothing = chunked_cross_entropy(hidden, weight, bad, torch.zeros(N))
    nothing.backward()
    assert nothing.item() == 0
    assert (hidden.grad == 0).all()


def test_no_rows_and_wrong_shapes():
    hidden, weight, targets, _ = draw()
    assert token_logprobs(hidden[:0], weight, targets[:0]).shape == (0,)
    with pytest.raises(InputError, match="do not belong together"):
        chunked_cross_entropy(hidden, weight, targets[:3])
    with pytest.raises(InputError, match="do not belong together"):
        token_logprobs(hidden, weight[:, :3], targets)
    with pytest.raises(InputError, match="chunk of 0 rows"):
        token_logprobs(hidden, weight, targets, chunk=0)


def test_huge_logits_stay_finite():
    hidden = torch.full((4, 2), 200.0, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]], requires_grad=True)
    found = chunked_cross_entropy(hidden, weight, torch.tensor([0, 1, 2, 0]))
    found.backward()
    assert found.item() == pytest.approx(800 + 400)
    assert torch.isfinite(hidden.grad).all()
