"""Clean and contaminated parts of a benchmark, and the threshold between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.errors import InputError
from herd.evaluate.clean import FEWEST, choose_threshold, cleaned


def items(count: int, dirty: float, lift: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Scores and shares: items with a share of at least 0.6 are right more often by `lift`."""
    rng = np.random.default_rng(seed)
    shares = np.where(rng.random(count) < dirty, rng.uniform(0.6, 1, count), rng.uniform(0, 0.3, count))
    right = rng.random(count) < 0.4 + lift * (shares >= 0.6)
    return right.astype(float).tolist(), shares.tolist()


def test_parts_and_gain_by_hand() -> None:
    scores = [1.0] * 15 + [0.0] * 5 + [1.0] * 5 + [0.0] * 15
    found = cleaned(scores, [0.8] * 20 + [0.1] * 20, 0.5)
    assert found.clean is not None
    assert found.dirty is not None
    assert (found.whole.value, found.clean.value, found.dirty.value) == pytest.approx((0.5, 0.25, 0.75))
    assert (found.gain, found.dirty_share) == pytest.approx((0.25, 0.5))


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_whole_is_made_of_its_parts(clean: int, dirty: int) -> None:
    scores = [float(k % 3 == 0) for k in range(clean + dirty)]
    found = cleaned(scores, [0.0] * clean + [1.0] * dirty, 0.5)
    assert (found.clean is None) == (clean < FEWEST)
    assert (found.dirty is None) == (dirty < FEWEST)
    if found.clean and found.dirty:
        mixed = found.clean.value * (1 - found.dirty_share) + found.dirty.value * found.dirty_share
        assert mixed == pytest.approx(found.whole.value)


def test_a_threshold_is_found_where_memory_helps_and_its_gain_is_that_of_memory() -> None:
    scores, shares = items(2000, 0.5, 0.4)
    chosen = choose_threshold({"8B": scores, "70B": scores}, shares)
    assert chosen is not None
    gain = cleaned(scores, shares, chosen).gain
    assert gain == pytest.approx(0.2, abs=0.05)  # half of the items are 0.4 better
    assert cleaned(scores, shares, 1.0).gain == pytest.approx(0.0, abs=0.01)  # so high, nothing is contaminated


def test_no_threshold_where_memory_does_not_help() -> None:
    scores, shares = items(800, 0.5, 0.0, seed=3)
    assert choose_threshold({"8B": scores}, shares) is None
    assert choose_threshold({"8B": scores}, [1.0] * 800) is None  # nothing is clean: no estimate
    assert choose_threshold({}, shares) is None


def test_false_alarms_are_as_rare_as_said() -> None:
    alarms = [
        choose_threshold({"8B": items(300, 0.5, 0.0, seed)[0]}, items(300, 0.5, 0.0, seed)[1]) for seed in range(60)
    ]
    assert sum(alarm is not None for alarm in alarms) <= 8  # of 60 at 5 %: 9 or more have a chance of 0.3 %


@pytest.mark.parametrize("threshold", [0.0, 1.01, -1.0])
def test_bad_input_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="no share"):
        cleaned([1.0], [0.5], threshold)
    with pytest.raises(InputError, match="each item needs both"):
        cleaned([1.0], [0.5, 0.5], 0.5)
