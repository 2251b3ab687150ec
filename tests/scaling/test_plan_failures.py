"""Interruptions: the published table, the same for the same seed, and more of them for more GPUs."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.scaling.plan.failures import CAUSES, DAY, Habits, interruptions, survive


def test_the_table_is_the_papers() -> None:
    unexpected = sum(count for _, kind, count in CAUSES if kind != "planned")
    assert unexpected == 419
    assert sum(count for _, _, count in CAUSES) == 466
    hardware = sum(count for _, kind, count in CAUSES if kind in ("hardware", "maintenance"))
    assert hardware / unexpected == pytest.approx(0.78, abs=0.07)  # "about 78 %" hardware, confirmed or suspected


def test_a_seed_decides_everything() -> None:
    assert survive(Habits(), 1024, 30, seed=3) == survive(Habits(), 1024, 30, seed=3)
    assert survive(Habits(), 1024, 30, seed=3) != survive(Habits(), 1024, 30, seed=4)


@settings(max_examples=30, deadline=None)
@given(
    gpus=st.integers(1, 100_000),
    days=st.floats(0.1, 30),
    every=st.floats(0, 7200),
    pause=st.floats(0, 60),
    restart=st.floats(0, 3600),
)
def test_time_is_used_once(gpus: int, days: float, every: float, pause: float, restart: float) -> None:
    """Training, pauses, lost steps and standing still are the days that passed, but for the end of the last repair."""
    habits = Habits(checkpoint_every=every, pause=pause, restart=restart)
    found = survive(habits, gpus, days, draws=4)
    used = found.effective * days * DAY + found.paused + found.lost + found.down
    longest = habits.detect + habits.restart + habits.read + habits.replace
    assert days * DAY <= used * (1 + 1e-6) <= (days * DAY + longest) * (1 + 1e-6) or found.effective == 0
    assert 0 <= found.effective_low <= found.effective <= found.effective_high <= 1


def test_twice_the_gpus_are_interrupted_twice_as_often() -> None:
    one, two = survive(Habits(), 8192, 54), survive(Habits(), 16_384, 54)
    assert two.unexpected / one.unexpected == pytest.approx(2, rel=0.05)
    assert two.effective < one.effective


def test_checkpoints_are_as_far_apart_as_loses_least() -> None:
    """Young's rule beats half and twice its distance."""
    best = survive(Habits(pause=20), 16_384, 54)
    for factor in (0.4, 2.5):
        other = survive(Habits(pause=20, checkpoint_every=best.interval * factor), 16_384, 54)
        assert other.paused + other.lost > best.paused + best.lost


def test_times_between_are_exponential() -> None:
    drawn = [one.at for one in interruptions(16_384, 3650 * DAY, random.Random(0))]
    gaps = [after - before for before, after in pairwise(drawn)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(54 * DAY / 466, rel=0.02)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.01)
