"""Intervals against published and independent values, and by simulation; tests against scipy and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from herd.errors import InputError
from herd.evaluate.statistics import (
    Interval,
    distribution_shift,
    holm,
    intervals_apart,
    macro_average,
    mcnemar,
    mean_interval,
    paired_difference,
    paper_halfwidth,
    wilson,
)


def test_the_papers_interval_of_humaneval() -> None:
    """Facts sheet 9.3: 0.726 of N=164 gives 6.8 points."""
    assert 100 * paper_halfwidth(0.726, 164) == pytest.approx(6.8, abs=0.05)
    assert paper_halfwidth(1.0, 10) == 0.0


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (119, 164), (3, 2000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes: int, n: int, level: float) -> None:
    ours = wilson(successes, n, level)
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_its_estimate_and_stays_in_range(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    found = wilson(successes, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low
    mirrored = wilson(n - successes, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high), abs=1e-12)


def test_nothing_measured_is_the_whole_range() -> None:
    assert wilson(0, 0) == Interval(0.5, 0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(InputError):
        wilson(successes, n)


def test_partial_scores_get_students_interval() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    found = mean_interval(values)
    theirs = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((max(0, theirs[0]), theirs[1]))


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [0.5, 1.5], [-0.1]])
def test_scores_that_are_none_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError):
        mean_interval(values)


def test_macro_average_counts_every_group_the_same() -> None:
    found = macro_average({"large": [1.0] * 90 + [0.0] * 10, "small": [1.0, 0.0]})
    assert found.value == pytest.approx((0.9 + 0.5) / 2)
    parts = [wilson(90, 100), wilson(1, 2)]
    assert found.low == pytest.approx(found.value - math.hypot(*(p.value - p.low for p in parts)) / 2)
    assert found.low < found.value < found.high
    with pytest.raises(InputError):
        macro_average({})


def test_macro_average_of_perfect_groups_still_has_a_width() -> None:
    found = macro_average({"a": [1.0] * 20, "b": [1.0] * 20})
    assert found.high == 1.0
    assert found.low < 0.95


def coverage(truths: list[float], sizes: list[int], rounds: int = 1500) -> float:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(rounds):
        groups = {
            str(i): (rng.random(n) < p).astype(float).tolist()
            for i, (p, n) in enumerate(zip(truths, sizes, strict=True))
        }
        covered += macro_average(groups).covers(sum(truths) / len(truths))
    return covered / rounds


@pytest.mark.parametrize(
    ("truths", "sizes"),
    [([0.7], [60]), ([0.97], [40]), ([0.9, 0.6, 0.3, 0.99], [40, 40, 40, 40]), ([0.85, 0.5], [200, 15])],
)
def test_intervals_cover_the_truth_at_their_rate(truths: list[float], sizes: list[int]) -> None:
    """1,500 rounds have a standard error of 0.6 points; discreteness of small groups moves a rate by some more."""
    rate = coverage(truths, sizes)
    assert 0.925 <= rate <= 0.985, rate


def test_intervals_apart() -> None:
    low, high, wide = Interval(0.2, 0.1, 0.3), Interval(0.5, 0.4, 0.6), Interval(0.4, 0.3, 0.5)
    assert intervals_apart(low, high)
    assert intervals_apart(high, low)
    assert not intervals_apart(low, wide)


@pytest.mark.parametrize(("won", "lost", "both"), [(9, 1, 20), (3, 3, 5), (0, 0, 7), (12, 0, 0), (5, 8, 100)])
def test_mcnemar_is_the_sign_test_of_the_differing_pairs(won: int, lost: int, both: int) -> None:
    first = [0.0] * won + [1.0] * lost + [1.0] * both
    second = [1.0] * won + [0.0] * lost + [1.0] * both
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (lost, won)
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert found.p == pytest.approx(min(1.0, 2 * tail) if n else 1.0)


def test_mcnemar_needs_pairs_of_right_or_wrong() -> None:
    with pytest.raises(InputError, match="right-or-wrong"):
        mcnemar([0.5], [1.0])
    with pytest.raises(InputError, match="same items"):
        mcnemar([1.0, 0.0], [1.0])


def test_paired_difference_sees_what_two_intervals_cannot() -> None:
    """The second model is right wherever the first is, and on 8 items more."""
    first = [1.0] * 50 + [0.0] * 50
    second = [1.0] * 58 + [0.0] * 42
    assert not intervals_apart(mean_interval(first), mean_interval(second))
    found = paired_difference({"all": first}, {"all": second})
    assert found.value == pytest.approx(0.08)
    assert found.low > 0


def test_paired_difference_covers_the_truth_at_its_rate() -> None:
    """Two capabilities; wins 15 % and 5 %, losses 5 % and 10 %: true macro difference 2.5 points."""
    rng = np.random.default_rng(1)
    covered, rounds = 0, 300
    for seed in range(rounds):
        first: dict[str, list[float]] = {}
        second: dict[str, list[float]] = {}
        for name, n, win, lose in (("a", 50, 0.15, 0.05), ("b", 80, 0.05, 0.10)):
            draw = rng.random(n)
            first[name] = np.where(draw < win, 0.0, np.where(draw < win + lose, 1.0, draw > 0.5)).tolist()
            second[name] = np.where(draw < win, 1.0, np.where(draw < win + lose, 0.0, draw > 0.5)).tolist()
        covered += paired_difference(first, second, replicates=1000, seed=seed).covers(0.025)
    assert 0.92 <= covered / rounds <= 0.99, covered / rounds


def test_pairs_that_all_agree_are_not_certainty() -> None:
    found = paired_difference({"a": [1.0] * 30}, {"a": [1.0] * 30})
    assert found.value == 0.0
    assert -0.1 < found.low < 0 < found.high < 0.1


def test_paired_difference_is_seeded_and_needs_the_same_groups() -> None:
    a, b = {"x": [1.0, 0.0, 1.0]}, {"x": [0.0, 0.0, 1.0]}
    assert paired_difference(a, b, seed=4) == paired_difference(a, b, seed=4)
    with pytest.raises(InputError, match="same groups"):
        paired_difference(a, {"y": [0.0, 0.0, 1.0]})


def test_holm_against_its_definition() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5}
    assert holm(p) == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.5})
    assert list(holm(p)) == list(p)
    assert holm({}) == {}


def test_holm_keeps_false_alarms_at_the_rate() -> None:
    rng = np.random.default_rng(3)
    alarms = [min(holm({str(i): float(p) for i, p in enumerate(rng.random(7))}).values()) < 0.05 for _ in range(2000)]
    assert 0.03 < np.mean(alarms) < 0.065


def test_distribution_shift_of_reward_scores() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(1.0, 2.0, 4000)
    same = distribution_shift(scores.tolist(), rng.normal(1.0, 2.0, 4000).tolist())
    moved = distribution_shift(scores.tolist(), (scores + 0.5).tolist())
    assert same.p > 0.01
    assert moved.p < 1e-6
    assert moved.wasserstein == pytest.approx(0.5, abs=1e-9)
    assert moved.mean_difference == pytest.approx(0.5, abs=1e-9)
    assert moved.relative == pytest.approx(0.25, rel=0.05)


def test_a_few_ruined_replies_show_in_the_distribution() -> None:
    """What an unbounded FP8 scale does: most scores stay, some collapse."""
    scores = np.random.default_rng(6).normal(0, 1, 2000)
    ruined = np.where(np.arange(2000) % 10 == 0, -8.0, scores)
    assert distribution_shift(scores.tolist(), ruined.tolist()).p < 1e-3


@pytest.mark.parametrize("bad", [[], [1.0, math.inf]])
def test_shift_needs_finite_scores(bad: list[float]) -> None:
    with pytest.raises(InputError):
        distribution_shift([0.0, 1.0], bad)


def test_constant_scores_have_no_relative_shift() -> None:
    for first, second in itertools.product([0.0, 1.0], repeat=2):
        relative = distribution_shift([first] * 5, [second] * 5).relative
        assert relative == (0.0 if first == second else math.inf)
