"""The FP8 layer with a static scale of activations, by itself (`tests/quantize/` has the one that makes them)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fp8_folders import close
from herd.weights.fp8 import Fp8Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_is_the_product_of_its_fp8_values(dtype):
    generator = torch.Generator().manual_seed(1)
    layer = Fp8Linear(64, 24, static=True)
    layer.weight = torch.randn(24, 64, generator=generator).to(torch.float8_e4m3fn)
    layer.weight_scale = torch.rand(24, 1, generator=generator)
    layer.input_scale = torch.tensor([0.004])
    x = torch.randn(2, 5, 64, generator=generator).to(dtype)
    x[0, 0, 0] = 100.0  # saturates at 448 * 0.004
    values = (x.double() / layer.input_scale.double()).clamp(-448, 448).float().to(torch.float8_e4m3fn)
    assert values.float()[0, 0, 0] == 448
    exact = values.double() @ layer.weight.double().T * layer.weight_scale.double().T * layer.input_scale.double()
    assert layer(x).dtype == dtype
    assert close(layer(x).double(), exact, {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype])


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 10.0))
def test_a_row_depends_on_no_other_row(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    layer = Fp8Linear(32, 8, static=True)
    layer.weight = torch.randn(8, 32, generator=generator).to(torch.float8_e4m3fn)
    layer.weight_scale = torch.rand(8, 1, generator=generator)
    layer.input_scale = torch.tensor([scale])
    x = torch.randn(3, 32, generator=generator)
    assert torch.equal(layer(x)[1], layer(x[1:2])[0])
    assert layer(torch.full((1, 32), math.nan)).isnan().all()
    assert layer(torch.full((1, 32), math.inf)).isfinite().all()  # what lies beyond saturates


def test_moving_a_layer_rounds_no_scale():
    layer = Fp8Linear(32, 8, static=True)
    layer.input_scale = torch.tensor([0.0123])
    assert layer.to(torch.bfloat16).input_scale == torch.tensor(0.0123)
    assert "static" in repr(layer)
