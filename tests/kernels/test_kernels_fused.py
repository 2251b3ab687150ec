"""Norms, SwiGLU and rotary positions against the plain functions of the network."""

import pytest
import torch

from herd.kernels.attention import E4M3, PageTensors
from herd.kernels.attention_plan import Sequence, plan
from herd.kernels.e4m3 import quantize_rows
from herd.kernels.fused import add_rms_norm, rms_norm, rotate_into, summary, swiglu
from herd.llama import reference

WIDTHS = (1, 7, 16, 33, 96, 2048)
TYPES = (torch.float32, torch.bfloat16)
EXACT = {"rtol": 0.0, "atol": 0.0}


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_rounded_alike(found, expected):
    """Equal but for the last bit, in bfloat16 of one number in a hundred."""
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(found.dtype).eps, atol=1e-6)
    if found.dtype == torch.bfloat16:
        assert (found != expected).float().mean() <= max(0.01, 1 / found.numel())


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
def test_norms_equal_the_plain_ones(dtype):
    for width in WIDTHS:
        for rows in (1, 3, 40):
            x, y = draw(rows, width, dtype=dtype), draw(rows, width, dtype=dtype, seed=1)
            weight = draw(width, dtype=dtype, seed=2)
            assert_rounded_alike(rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
            total, normed = add_rms_norm(x.clone(), y, weight, 1e-5)
            torch.testing.assert_close(total, x + y, **EXACT)
            assert_rounded_alike(normed, reference.rms_norm(x + y, weight, 1e-5))
            assert torch.equal(normed, torch.cat([rms_norm(row, weight, 1e-5) for row in (x + y).split(1)]))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
def test_swiglu_equals_the_plain_one(dtype):
    for width in WIDTHS:
        gate, up = draw(40, width, dtype=dtype) * 10, draw(40, width, dtype=dtype, seed=1)
        gate[0], gate[1] = 200.0, -200.0
        expected, rows = reference.swiglu(gate, up), zip(gate.clone().split(1), up.split(1), strict=True)
        found = swiglu(gate, up)
        assert_rounded_alike(found, expected)
        assert torch.equal(found, torch.cat([swiglu(*row) for row in rows]))
    assert swiglu(torch.tensor([torch.nan, 1.0]), torch.ones(2)).isnan().tolist() == [True, False]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("cache_dtype", [None, E4M3])
def test_rotation_is_the_plain_one_and_keys_and_values_come_to_their_places(dtype, cache_dtype):
    for n, heads, groups, size in [(1, 4, 2, 64), (20, 6, 2, 6), (40, 4, 4, 40)]:
        q, k, v = (
            draw(n, heads, size, dtype=dtype),
            draw(n, groups, size, dtype=dtype, seed=1),
            draw(n, groups, size, dtype=dtype, seed=2),
        )
        angles = draw(n, size // 2, seed=3)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        starts = [0, 16, 3, 40][: -(-n // 10)]
        planned = plan(
            [Sequence(start, start + min(10, n), [4 - i, i, i, i]) for i, start in enumerate(starts)],
            16,
            heads // groups,
        )
        places = planned.places_N
        keys, values = (torch.zeros(5, groups, 16, size, dtype=cache_dtype or dtype) for _ in range(2))
        scales = (torch.zeros(5, groups, 16) for _ in range(2))
        pages = PageTensors(keys, values, *(scales if cache_dtype else ()))
        turned = rotate_into(q.clone(), k, v, cos, sin, pages, planned)
        around = (cos[:, None], sin[:, None])
        assert_turned(turned, reference.rotate(q, *around), dtype)
        for found, scale, expected in (
            (pages.keys, pages.key_scale, rotate_into(k.clone(), k, v, cos, sin, pages, planned)),
            (pages.values, pages.value_scale, v),
        ):
            there = found[places // 16, :, places % 16]
            if cache_dtype is None:
                assert torch.equal(there, expected)
                continue
            codes, its_scale = quantize_rows(expected)
            assert torch.equal(there.view(torch.uint8), codes.view(torch.uint8))
            assert torch.equal(scale[places // 16, :, places % 16], its_scale.squeeze(-1))


def assert_turned(found, expected, dtype):
    """Plain torch rounds the same products; a fused multiply-add of its vectors may round one less."""
    torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "call",
    [
        lambda: rms_norm(draw(2, 4), draw(5), 1e-5),
        lambda: add_rms_norm(draw(2, 4), draw(2, 4).bfloat16(), draw(4), 1e-5),
        lambda: swiglu(draw(2, 4), draw(2, 5)),
        lambda: swiglu(draw(2, 4).double(), draw(2, 4).double()),
    ],
)
def test_sizes_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="belong"):
        call()


@pytest.mark.usefixtures("level")
def test_a_row_of_logits_is_summed_up_as_log_softmax_does_it():
    for width in (1, 7, 16, 33, 511, 513, 2048, 5000):
        logits = draw(40, width) * 20
        logits[0] = 3.0  # of equals the lowest id
        logits[1, : width - 1] = -torch.inf
        top, total, likeliest = summary(logits)
        assert torch.equal(top, logits.amax(1))
        assert likeliest.tolist() == logits.numpy().argmax(1).tolist()
        expected = torch.log_softmax(logits.double(), 1).gather(1, likeliest[:, None]).squeeze(1)
        torch.testing.assert_close(-total.double().log(), expected, rtol=1e-5, atol=1e-6)
        rows = [torch.stack(summary(row)[:2]) for row in logits.split(1)]
        assert torch.equal(torch.cat(rows, 1), torch.stack((top, total)))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_logit_that_is_no_finite_number_spoils_its_row_alone(bad):
    logits = draw(3, 40)
    for place in (0, 39):
        spoiled = logits.clone()
        spoiled[1, place] = bad
        assert summary(spoiled)[1].isnan().tolist() == [False, True, False]
    assert summary(torch.full((1, 40), -torch.inf))[1].isnan().all()


def test_what_are_no_rows_of_logits_is_refused():
    for logits in (torch.ones(3), torch.ones(2, 0), torch.ones(2, 3, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="not rows of float32"):
            summary(logits)
