"""Drafters: what they guess, when they are asked, and what they may do wrong."""

import dataclasses

import numpy as np
import pytest
import torch
from drafting import (
    SHAPE,
    VOCABULARY,
    Cheap,
    Oracle,
    assert_equal,
    drafted,
    model_and_smaller,
    requests_of,
    run,
)
from generate_models import telling_model
from hypothesis import given
from hypothesis import strategies as st

from herd.errors import SettingError
from herd.generate import model_drafter
from herd.generate.engine import Engine
from herd.generate.model_drafter import ModelDrafter
from herd.generate.pages import PAGE, Pages
from herd.generate.prompt_lookup import PromptLookup, look_up
from herd.generate.sampling import uniforms
from herd.generate.speculation import Pace, Statistics
from herd.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model():
    return model_and_smaller()[0]


@pytest.fixture(scope="module")
def smaller():
    return model_and_smaller()[1]


def test_a_draft_drawn_with_the_same_uniform_is_accepted_more_often(model, monkeypatch):
    like = telling_model(SHAPE)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in like.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.003)
    rates = []
    for shift in (0, 1):
        monkeypatch.setattr(model_drafter, "uniforms", lambda seeds, steps: uniforms(seeds + np.uint64(shift), steps))  # noqa: B023
        engine = drafted(model, Cheap(like))
        run(engine, requests_of(12, seed=8, temperature=1.5, stop_ids=()))
        assert engine.drafting.drafted > 30
        rates.append(engine.drafting.accepted / engine.drafting.drafted)
    assert rates[0] > 1.2 * rates[1]


def test_many_running_requests_are_not_drafted_for(model):
    requests = requests_of(6, temperature=0.0, max_tokens=10, stop_ids=())
    oracle = Oracle(lies=0.0)
    run(drafted(model, oracle, max_drafting=5, max_running=6), requests)
    few = oracle.calls
    run(drafted(model, oracle, max_drafting=0), requests[:1])
    assert oracle.calls == 0
    run(drafted(model, oracle, max_drafting=6), requests)
    assert oracle.calls > few


def test_a_drafter_that_fails_or_is_stopped_costs_speed_only(model):
    requests = requests_of(6, seed=2, temperature=0.9, max_tokens=30, stop_ids=())
    expected = run(drafted(model, None), requests)

    class Failing(Oracle):
        def draft(self, wanted):
            if self.calls == 4:
                raise RuntimeError("out of order")
            return super().draft(wanted)

    engine = drafted(model, Failing(lies=0.2))
    assert_equal(run(engine, requests), expected)
    assert engine.drafting.failure == "RuntimeError: out of order"
    engine = drafted(model, Cheap(model))
    handles = [engine.submit(request) for request in requests]
    done = {}
    for step in range(1000):
        if not engine.busy:
            break
        done.update(engine.step().finished)
        if step == 3:
            engine.continuous.speculation.stop("killed")
    assert_equal([done[handle] for handle in handles], expected)
    assert engine.drafting.failure == "killed"


def test_a_drafter_with_too_few_pages_or_too_short_a_context_says_nothing(model):
    short = telling_model(dataclasses.replace(SHAPE, max_seq_len=24))
    requests = requests_of(5, seed=4, temperature=0.0)
    expected = run(drafted(model, None), requests)
    assert_equal(run(drafted(model, Cheap(short)), requests), expected)
    engine = drafted(model, Cheap(model))
    engine.continuous.speculation._drafts.pool = Pages(3, PAGE)
    assert_equal(run(engine, requests), expected)
    assert engine.drafting.failure == ""


def test_a_long_prompt_is_read_by_the_drafter_over_several_steps(model, monkeypatch):
    monkeypatch.setattr("herd.generate.model_drafter._CATCH_UP", 10)
    requests = requests_of(4, seed=6, temperature=0.0, max_tokens=40, stop_ids=())
    expected = run(drafted(model, None), requests)
    engine = drafted(model, Cheap(model))
    assert_equal(run(engine, requests), expected)
    assert engine.drafting.accepted == engine.drafting.drafted > 0


def test_guesses_that_are_no_ids_are_left_out(model):
    class Strange(Oracle):
        def draft(self, wanted):
            return [[3, VOCABULARY, 4][: one.most] if one.number % 2 else [-1] for one in wanted]

    requests = requests_of(4, temperature=0.0)
    assert_equal(run(drafted(model, Strange()), requests), run(drafted(model, None), requests))


def test_a_drafter_as_dear_as_the_model_is_hardly_asked(model):
    engine = drafted(model, ModelDrafter(model))
    run(engine, requests_of(4, seed=6, temperature=0.0, max_tokens=40, stop_ids=()))
    assert 0 < engine.drafting.drafted < 4 * 40 / 8


def test_a_drafter_of_another_vocabulary_is_refused_with_both_fingerprints(model):
    one, other = Tokenizer.train(["a b"]), Tokenizer.train(["hello hello"] * 3, 530)
    size = one.vocab_size
    models = [telling_model(dataclasses.replace(SHAPE, vocab_size=n)) for n in (size, other.vocab_size)]
    with pytest.raises(SettingError) as caught:
        Engine(models[0], tokenizer=one, drafter=ModelDrafter(models[1], other))
    assert one.fingerprint[:16] in caught.value.message
    assert other.fingerprint[:16] in caught.value.message
    with pytest.raises(SettingError, match=f"{other.vocab_size} ids"):
        Engine(models[0], drafter=ModelDrafter(models[1]))
    for wrong in (lambda: ModelDrafter(model, max_draft=0), lambda: PromptLookup(0), lambda: PromptLookup(max_draft=0)):
        with pytest.raises(SettingError):
            wrong()
    with pytest.raises(SettingError, match="min_ngram"):
        PromptLookup(min_ngram=0)


def naive_look_up(text, max_ngram, min_ngram, most):
    for n in range(min(max_ngram, len(text) - 1), min_ngram - 1, -1):
        for start in range(len(text) - n - 1, -1, -1):
            if text[start : start + n] == text[-n:]:
                following = text[start + n :]
                return [following[i % len(following)] for i in range(most)]
    return []


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9))
def test_look_up_finds_what_a_plain_search_finds(text, max_ngram, min_ngram, most):
    found = look_up(np.array(text, dtype=np.int32), max_ngram, min(min_ngram, max_ngram), most)
    assert found == naive_look_up(text, max_ngram, min(min_ngram, max_ngram), most)


def test_guesses_are_as_many_as_pay():
    good, bad, dear = Pace(0.0), Pace(0.0), Pace(1.0)
    for _ in range(30):
        good.checked(4, 4)
        bad.checked(1, 0)
        dear.checked(2, 1)
    assert good.length(8) == 8
    assert dear.length(8) == 0
    assert sum(bad.length(8) > 0 for _ in range(64)) == 4  # now and then it is tried again
    for _ in range(30):
        bad.checked(1, 1)
    assert bad.length(8) > 4
    assert good.length(0) == 0


def test_pages_of_the_drafter_are_forgotten_with_the_engines(model):
    engine = drafted(model, Cheap(telling_model(SHAPE)))
    requests = requests_of(3, seed=6, temperature=0.0, max_tokens=30, stop_ids=())
    expected = run(engine, requests)
    drafts = engine.continuous.speculation._drafts
    assert drafts.pool.begin((*requests[0].prompt, 0)).length > 0  # they are found again ...
    engine = drafted(model, Cheap(telling_model(SHAPE)))
    run(engine, requests)
    drafts = engine.continuous.speculation._drafts
    engine.continuous.forget()  # what `engine.forget` calls, and whoever runs without an engine
    assert drafts.pool.begin((*requests[0].prompt, 0)).length == 0  # ... and then they are not
    handles = [engine.submit(request) for request in requests]
    done = {}
    for step in range(1000):  # weights that change while requests run cost guesses, and no token
        if not engine.busy:
            break
        if step == 5:
            assert drafts.readers
            engine.forget()
            assert not drafts.readers
        done.update(engine.step().finished)
    assert_equal([done[handle] for handle in handles], expected)
    assert engine.drafting.failure == ""


@pytest.mark.parametrize("fault", ["a page", "a request"])
def test_a_drafter_that_loses_pages_is_noticed_when_nothing_runs(model, fault):
    requests = requests_of(3, seed=6, temperature=0.0, max_tokens=30, stop_ids=())
    expected = run(drafted(model, None), requests)
    engine = drafted(model, Cheap(model))
    drafts = engine.continuous.speculation._drafts
    if fault == "a page":
        drafts.pool._take()
    else:
        drafts.end = lambda number: None
    assert_equal(run(engine, requests), expected)
    assert engine.drafting.failure.startswith("AssertionError: ")


def test_statistics_begin_with_nothing(model):
    assert Engine(model, drafter=PromptLookup()).drafting == Statistics()
    assert Engine(model).drafting == Statistics()
