"""Runs that go on: a phase from the state of another, a run for more steps than it was begun with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from train_models import random_documents, tiny_model, tiny_settings

from herd.errors import ArtifactError, SettingError
from herd.train.batch import WHOLE, Part
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.settings import prolongable
from herd.train.sources import Batches, TokenStream

PLAIN = tiny_settings(schedule="constant", warmup_steps=0, checkpoint_every_steps=100)


@dataclass
class Later:
    """The steps of a source from some step on."""

    source: Batches
    start: int

    def batch(self, step: int, part: Part = WHOLE):
        return self.source.batch(self.start + step, part)


def source() -> Batches:
    return Batches(TokenStream(random_documents(40), 16, 0), PLAIN)


def weights_of(model):
    return [param.detach().clone() for param in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_phases_end_in_the_bits_of_one_run(folder, dtype):
    settings = replace(PLAIN, dtype=dtype)
    whole, first, second = tiny_model(), tiny_model(), tiny_model(seed=9)
    train(whole, LanguageModelling(), source(), settings, folder / "whole")
    train(first, LanguageModelling(), source(), replace(settings, steps=5), folder / "first")
    begin = folder / "first" / "checkpoints"
    train(second, LanguageModelling(), Later(source(), 5), replace(settings, steps=3), folder / "second", begin=begin)
    assert same(weights_of(whole), weights_of(second))
    assert not same(weights_of(whole), weights_of(first))


def test_a_phase_of_another_shape_is_refused(folder):
    train(tiny_model(), LanguageModelling(), source(), PLAIN, folder / "first")
    begin, other = folder / "first" / "checkpoints", tiny_model(dim=32)
    with pytest.raises(ArtifactError, match="another shape"):
        train(other, LanguageModelling(), source(), PLAIN, folder / "second", begin=begin)


def test_a_prolonged_run_ends_in_the_bits_of_a_long_one(folder):
    whole, twice = tiny_model(), tiny_model()
    train(whole, LanguageModelling(), source(), PLAIN, folder / "whole")
    train(twice, LanguageModelling(), source(), replace(PLAIN, steps=5), folder / "twice")
    result = train(tiny := tiny_model(), LanguageModelling(), source(), PLAIN, folder / "twice")
    assert same(weights_of(whole), weights_of(tiny))
    assert [record.step for record in result.history] == list(range(1, 9))


@pytest.mark.parametrize("changes", [{"schedule": "cosine"}, {"anneal_steps": 2}])
def test_a_run_whose_rates_depend_on_its_length_is_not_prolonged(folder, changes):
    settings = replace(PLAIN, **changes)
    train(tiny_model(), LanguageModelling(), source(), replace(settings, steps=5), folder)
    with pytest.raises(SettingError, match="another steps"):
        train(tiny_model(), LanguageModelling(), source(), settings, folder)


def test_a_run_is_not_shortened(folder):
    train(tiny_model(), LanguageModelling(), source(), PLAIN, folder)
    with pytest.raises(SettingError, match="another steps"):
        train(tiny_model(), LanguageModelling(), source(), replace(PLAIN, steps=5), folder)


def test_what_can_be_prolonged():
    assert prolongable(PLAIN)
    assert prolongable(replace(PLAIN, schedule="cosine", cosine_steps=100))
    assert not prolongable(replace(PLAIN, checkpoint_every_steps=0))
