"""Fast elementwise paths and blocked attention against their plain twins, values and gradients."""

import pytest
import torch

from herd.llama import blocked, fused, reference
from herd.llama.attention import document_mask
from herd.llama.rope import document_starts


def draw(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + len(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def compare(fast, plain, inputs, rtol, atol):
    found, expected = fast(*inputs), plain(*inputs)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).to(expected.dtype)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


TOLERANCE = {torch.float64: (1e-10, 1e-10), torch.float32: (1e-5, 1e-5), torch.bfloat16: (0.05, 0.05)}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rms_norm_equals_its_reference(dtype):
    inputs = (draw(2, 5, 16, dtype=dtype), draw(16, dtype=dtype))
    compare(
        lambda x, w: fused.rms_norm(x, w, 1e-5), lambda x, w: reference.rms_norm(x, w, 1e-5), inputs, *TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu_equals_its_reference(dtype):
    inputs = (draw(2, 5, 16, dtype=dtype), draw(2, 5, 16, dtype=dtype, seed=1))
    compare(fused.swiglu, reference.swiglu, inputs, *TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rotation_equals_its_reference(dtype):
    angles = torch.rand(1, 5, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    inputs = (draw(2, 5, 3, 8, dtype=dtype),)
    compare(lambda x: fused.rotate(x, cos, sin), lambda x: reference.rotate(x, cos, sin), inputs, *TOLERANCE[dtype])


@pytest.mark.slow
def test_rotations_in_one_compiled_graph_are_not_mixed_up():
    """The graph is traced, but run by torch's own kernels: with `out=` into halves two rotations once shared memory."""
    angles = torch.rand(2, 5, 1, 4, generator=torch.Generator().manual_seed(3)) * 6
    cos, sin = angles.cos(), angles.sin()
    inputs = (draw(2, 5, 4, 8, dtype=torch.float32), draw(2, 5, 2, 8, dtype=torch.float32, seed=1))

    def both(turn):
        return lambda q, k: torch.cat([turn(q, cos, sin), turn(k, cos, sin)], 2)

    compare(torch.compile(both(fused.rotate), backend="aot_eager"), both(reference.rotate), inputs, 1e-5, 1e-5)


def test_gradients_by_finite_differences():
    assert torch.autograd.gradcheck(lambda x, w: fused.rms_norm(x, w, 1e-5), (draw(3, 6), draw(6)))
    assert torch.autograd.gradcheck(fused.swiglu, (draw(3, 6), draw(3, 6, seed=1)))
    starts = document_starts(torch.tensor([[0, 0, 1, 1, 1]]))
    q, k, v = draw(1, 5, 4, 2), draw(1, 5, 2, 2), draw(1, 5, 2, 2, seed=1)
    spans = blocked.plan_documents(starts, q)
    assert torch.autograd.gradcheck(lambda *x: blocked.blocked_attention(*x, spans), (q, k, v))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("block", [1, 3, 8, 64])
@pytest.mark.parametrize("keep_bytes", [0, 1 << 20], ids=["again", "kept"])
def test_blocked_attention_equals_its_reference(keep_bytes, block, kv_heads, dtype, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", block)
    monkeypatch.setattr(blocked, "KEEP_BYTES", keep_bytes)
    ids = torch.tensor([[0] * 7 + [1] + [2] * 13, [0] * 21, list(range(21))])
    starts = document_starts(ids)
    q = draw(3, 21, 4, 6, dtype=dtype)
    k, v = draw(3, 21, kv_heads, 6, dtype=dtype, seed=1), draw(3, 21, kv_heads, 6, dtype=dtype, seed=2)
    spans = blocked.plan_documents(starts, q)
    mask = document_mask(starts)
    compare(
        lambda *x: blocked.blocked_attention(*x, spans),
        lambda *x: reference.attention(*x, mask),
        (q, k, v),
        *TOLERANCE[dtype],
    )


def test_short_rows_in_training_equal_torchs_causal_kernel_and_long_ones_are_left_to_it():
    q, k, v = draw(3, 150, 4, 8), draw(3, 150, 2, 8, seed=1), draw(3, 150, 2, 8, seed=2)
    spans = blocked.plan_causal(3, 150, 4, q)
    assert spans is not None
    mask = document_mask(torch.zeros(3, 150, dtype=torch.int64))
    compare(
        lambda *x: blocked.blocked_attention(*x, spans),
        lambda *x: reference.attention(*x, mask),
        (q, k, v),
        *TOLERANCE[q.dtype],
    )
    assert blocked.plan_causal(1, 8192, 8, q) is None


def test_rms_norm_of_a_zero_row_is_zero_with_finite_gradients():
    x = torch.zeros(2, 8, requires_grad=True)
    out = fused.rms_norm(x, torch.ones(8), 1e-5)
    out.sum().backward()
    assert (out == 0).all()
    assert torch.isfinite(x.grad).all()
