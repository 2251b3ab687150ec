"""Averages of models: a mean in float32, refused where the models do not fit together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import InputError, SettingError
from herd.posttrain.average import pick, weighted_average


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in (("a", (3, 4)), ("b", (5,)))}


@given(st.lists(st.floats(0, 5), min_size=1, max_size=4).filter(lambda weights: sum(weights) > 0.1))
@settings(max_examples=50, deadline=None)
def test_the_mean_is_the_weighted_mean(weights: list[float]) -> None:
    states = [state(n) for n in range(len(weights))]
    found = weighted_average(states, weights)
    for name, tensor in found.items():
        parts = zip(states, weights, strict=True)
        expected = sum(one[name].double() * weight for one, weight in parts) / sum(weights)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_single_model_comes_back_bit_for_bit_and_as_a_copy() -> None:
    one = state(1)
    found = weighted_average([one, state(2)], [0.3, 0.0])
    assert all(torch.equal(found[name], one[name]) and found[name] is not one[name] for name in one)
    found["a"].zero_()
    assert one["a"].abs().sum() > 0


def test_low_precision_is_accumulated_in_float32() -> None:
    # 512 + 1 is not a bfloat16 number: adding one by one in bfloat16 would stand still.
    states = [{"w": torch.tensor([value], dtype=torch.bfloat16)} for value in [512.0] + [1.0] * 255]
    found = weighted_average(states, [1.0] * 256)["w"]
    assert found.dtype == torch.bfloat16
    assert float(found) == pytest.approx((512 + 255) / 256, rel=1 / 256)


def test_the_order_of_models_does_not_matter() -> None:
    first = weighted_average([state(1), state(2), state(3)], [1, 2, 3])
    second = weighted_average([state(3), state(1), state(2)], [3, 1, 2])
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-6, atol=1e-6)


def test_models_that_do_not_fit_together_are_refused() -> None:
    one = state(1)
    with pytest.raises(InputError, match="lacks 'b'"):
        weighted_average([one, {"a": one["a"]}], [1, 1])
    with pytest.raises(InputError, match="has 'c' besides"):
        weighted_average([one, {**one, "c": one["a"]}], [1, 1])
    with pytest.raises(InputError, match=r"'b' is \(5,\) in model 1, \(6,\) in model 2"):
        weighted_average([one, {**one, "b": torch.zeros(6)}], [1, 1])
    counts = [{"n": torch.tensor([1])}, {"n": torch.tensor([2])}]
    with pytest.raises(InputError, match="has no mean"):
        weighted_average(counts, [1, 1])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], []])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(SettingError):
        weighted_average([state(1), state(2)], weights)


def test_pick_takes_the_best_and_of_equals_the_first() -> None:
    assert pick({"a": 1, "b": 3, "c": 3}, float) == ("b", {"a": 1.0, "b": 3.0, "c": 3.0})
