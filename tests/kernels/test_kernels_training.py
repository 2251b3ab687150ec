"""What training computes through the library, forward and backward, against the plain functions in float64."""

import pytest
import torch

from herd.kernels import training, training_attention, training_loss
from herd.llama import reference
from herd.llama.rope import document_starts

TYPES = (torch.float32, torch.bfloat16)
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}  # of the length of a gradient, relatively


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same_gradients(function, plain, *inputs):
    """Outputs and gradients of `function` against those of `plain` on the same numbers in float64."""
    narrow = [x.detach().clone().requires_grad_() for x in inputs]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = function(*narrow), plain(*wide)
    upstream = draw(*out.shape, dtype=out.dtype, seed=9)
    out.backward(upstream)
    expected.backward(upstream.double())
    slack = 2e-3 if inputs[0].dtype == torch.bfloat16 else 1e-5  # of numbers of the order of one
    for found, true in ((out, expected), *((x.grad, y.grad) for x, y in zip(narrow, wide, strict=True))):
        assert found.dtype in (inputs[0].dtype, torch.float32)
        assert (found.double() - true).norm() <= CLOSE[inputs[0].dtype] * true.norm() + slack


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
def test_norms_and_swiglu(dtype):
    for rows, width in ((1, 1), (3, 7), (130, 33), (65, 256)):
        x, y, weight = draw(rows, width, dtype=dtype), draw(rows, width, dtype=dtype, seed=1), draw(width, dtype=dtype)
        assert_same_gradients(
            lambda x, w: training.rms_norm(x, w, 1e-5), lambda x, w: reference.rms_norm(x, w, 1e-5), x, weight
        )
        assert_same_gradients(training.swiglu, reference.swiglu, x * 8, y)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows_of_angles", [1, 2])
def test_rotations(dtype, rows_of_angles):
    for size in (2, 6, 64):
        x = draw(2, 70, 3, size, dtype=dtype)
        angles = draw(rows_of_angles, 70, 1, size // 2, seed=1)
        cos, sin = angles.cos(), angles.sin()
        assert_same_gradients(
            lambda x, c=cos, s=sin: training.rotate(x, c, s),
            lambda x, c=cos, s=sin: reference.rotate(x, c.double(), s.double()),
            x,
        )


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
def test_the_loss(dtype, monkeypatch):
    monkeypatch.setattr(training_loss, "BYTES", 100_000)  # several stretches of rows
    for rows, vocabulary in ((1, 3), (200, 1003), (70, 4096)):
        hidden, weight = draw(rows, 32, dtype=dtype), draw(vocabulary, 32, dtype=dtype, seed=1) / 4
        targets = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(2))
        weights = draw(rows, seed=3).abs()
        assert_same_gradients(
            lambda h, w, t=targets, s=weights: training_loss.cross_entropy(h, w, t, s),
            lambda h, w, t=targets, s=weights: reference.cross_entropy(h, w, t, s.double()),
            hidden,
            weight,
        )
    with pytest.raises(ValueError, match="targets"):
        training_loss.cross_entropy(hidden, weight, targets + vocabulary, weights)
    assert float(training_loss.cross_entropy(hidden[:0], weight, targets[:0], weights[:0])) == 0.0


def starts_of(batch, length, packed):
    if not packed:
        return torch.zeros(batch, length, dtype=torch.int64)
    cut = torch.rand(batch, length, generator=torch.Generator().manual_seed(3)) < 0.04
    return document_starts(cut.cumsum(1))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_attention(dtype, packed):
    for batch, length, heads, groups, size in (
        (2, 64, 4, 2, 32),
        (1, 33, 2, 2, 64),
        (2, 201, 6, 2, 32),
        (1, 70, 2, 1, 128),
    ):
        q = draw(batch, length, heads, size, dtype=dtype)
        k, v = (draw(batch, length, groups, size, dtype=dtype, seed=seed) for seed in (1, 2))
        if not training_attention.attends(q):
            assert dtype == torch.bfloat16
            pytest.skip("attention in bfloat16 needs AMX")
        starts = starts_of(batch, length, packed).int()
        keys = torch.arange(length)
        mask = ((keys >= starts[..., None]) & (keys <= keys[:, None]))[:, None]
        assert_same_gradients(
            lambda q, k, v, s=starts: training_attention.attention(q, k, v, s),
            lambda q, k, v, m=mask: reference.attention(q, k, v, m),
            *(q, k, v),
        )


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", TYPES)
def test_gradients_do_not_depend_on_the_number_of_threads(dtype):
    if not training_attention.attends(draw(1, 1, 1, 32, dtype=dtype)):
        pytest.skip("attention in bfloat16 needs AMX")

    def gradients():
        x, weight = draw(500, 96, dtype=dtype).requires_grad_(), draw(96, dtype=dtype).requires_grad_()
        q = draw(2, 300, 4, 32, dtype=dtype).requires_grad_()
        training.rms_norm(x, weight, 1e-5).square().sum().backward()
        training_attention.attention(
            q, q[:, :, :2], q[:, :, 2:], torch.zeros(2, 300, dtype=torch.int32)
        ).square().sum().backward()
        return x.grad, weight.grad, q.grad

    threads, first = torch.get_num_threads(), gradients()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert all(torch.equal(one, other) for one, other in zip(first, gradients(), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("compiled")
def test_what_does_not_fit_is_refused():
    q, starts = draw(1, 40, 4, 32), torch.zeros(1, 40, dtype=torch.int32)
    with pytest.raises(ValueError, match="do not fit"):
        training_attention.attention(q, q[:, :, :3], q[:, :, :3], starts)
    with pytest.raises(ValueError, match="do not fit"):
        training_attention.attention(q, q, q, starts.long())
    assert not training_attention.attends(draw(1, 40, 4, 24))
    assert not training.usable(q.double())
    assert not training.usable(q, q.bfloat16())
