"""Learning rates and settings, against the figures of the paper."""

from __future__ import annotations

import itertools

import pytest
from train_models import tiny_settings

from herd.errors import SettingError
from herd.train.schedule import lr_at
from herd.train.settings import TrainSettings


@pytest.mark.parametrize(
    ("step", "rate"), [(4_000, 4e-5), (8_000, 8e-5), (604_000, 4.04e-5), (1_200_000, 8e-7), (1, 1e-8)]
)
def test_the_405b_schedule(step, rate):
    settings = TrainSettings(steps=1_200_000, batch_tokens=4096, seq_len=4096, peak_lr=8e-5)
    assert lr_at(settings, step) == pytest.approx(rate, rel=1e-9)


def test_annealing_goes_linearly_to_zero_from_the_rate_reached():
    settings = tiny_settings(steps=100, warmup_steps=10, anneal_steps=20, cosine_steps=200)
    reached = lr_at(settings, 80)
    before = tiny_settings(steps=100, warmup_steps=10, cosine_steps=200)
    assert reached == lr_at(before, 80) > 0
    assert [lr_at(settings, 80 + n) for n in (5, 10, 20)] == pytest.approx([0.75 * reached, 0.5 * reached, 0.0])


def test_a_constant_schedule_and_an_anneal_of_the_whole_run():
    assert lr_at(tiny_settings(schedule="constant"), 8) == 1e-2
    settings = tiny_settings(schedule="constant", warmup_steps=0, anneal_steps=8)
    assert [lr_at(settings, step) for step in (1, 4, 8)] == pytest.approx([1e-2 * 7 / 8, 5e-3, 0.0])


def test_the_schedule_is_continuous():
    settings = tiny_settings(steps=1000, warmup_steps=50, anneal_steps=100)
    rates = [lr_at(settings, step) for step in range(1, 1001)]
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) <= 1e-2 / 50 + 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_tokens", 65),
        ("microbatch_tokens", 24),
        ("peak_lr", 0.0),
        ("beta2", 1.0),
        ("min_lr_ratio", 2.0),
        ("anneal_steps", 9),
        ("schedule", "linear"),
        ("dtype", "float16"),
        ("spike_factor", 0.5),
        ("grad_clip", -1.0),
    ],
)
def test_settings_that_cannot_work_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        tiny_settings(**{name: value})
