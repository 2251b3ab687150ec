"""Speculative decoding: the same tokens and log-probabilities as without it, whatever is guessed."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from drafting import (
    SHAPE,
    Cheap,
    OnlyEven,
    Oracle,
    Refrain,
    assert_equal,
    drafted,
    drafters,
    model_and_smaller,
    requests_of,
    run,
)
from generate_models import telling_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from herd.generate import Request, Sampling
from herd.generate.engine import Engine
from herd.generate.pages import PAGE
from herd.generate.prompt_lookup import PromptLookup
from herd.generate.settings import SchedulerSettings
from herd.kernels import library
from herd.llama.config import LlamaConfig
from herd.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model():
    return model_and_smaller()[0]


@pytest.fixture(scope="module")
def smaller():
    return model_and_smaller()[1]


SETTINGS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0},
    "truncated": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "top_logprobs": 3},
    "penalties": {"temperature": 0.7, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "logit_bias": {3: 2.0}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_drafter_changes_a_token(model, smaller, name):
    requests = requests_of(10, **SETTINGS[name])
    expected = run(drafted(model, None), requests)
    for kind, drafter in drafters(model, smaller, requests, expected).items():
        engine = drafted(model, drafter)
        assert_equal(run(engine, requests), expected)
        assert engine.drafting.failure == ""
        assert engine.drafting.drafted > 0, kind
        if kind in ("oracle", "the model itself") and name != "penalties":
            # it always says what the model says, so all is accepted but what lies behind a stop id
            assert engine.drafting.accepted > 0.9 * engine.drafting.drafted, kind
        if kind == "fool":
            assert engine.drafting.accepted < 0.1 * engine.drafting.drafted


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_the_engine_is_invariant_not_a_bit_changes(model, smaller, temperature):
    if library.kernels() is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
    requests = requests_of(8, seed=11, temperature=temperature, top_logprobs=2)
    how = SchedulerSettings(max_running=8, token_budget=60)
    [expected, *others] = [
        run(Engine(model, scheduling=how, drafter=drafter, invariant=True), requests)
        for drafter in (None, Cheap(smaller), PromptLookup(min_ngram=1), Oracle(lies=0.5))
    ]
    for found in others:
        assert [(c.tokens, c.logprobs, c.top_logprobs) for c in found] == [
            (c.tokens, c.logprobs, c.top_logprobs) for c in expected
        ]


def test_passes_are_saved(model):
    request = Request((1, 2, 3), Sampling(max_tokens=60, temperature=0.0))
    [expected] = run(drafted(model, None), [request])
    engine = drafted(model, Oracle([(request.prompt, expected.tokens)], lies=0.0))
    engine.submit(request)
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    assert steps < 60 / 4
    assert engine.drafting.accepted == engine.drafting.drafted > 40


def test_generate_and_stream_draft_too(model):
    requests = requests_of(5, temperature=0.8, seed=3)
    expected = Engine(model).generate(requests)
    oracle = Oracle([(r.prompt, c.tokens) for r, c in zip(requests, expected, strict=True)], lies=0.2)
    assert_equal(drafted(model, oracle).generate(requests), expected)
    assert oracle.calls > 0
    streamed = [tuple(token for token, _ in drafted(model, oracle).stream(r)) for r in requests]
    assert streamed == [c.tokens for c in expected]


def test_grammars_stop_texts_and_candidates_are_the_same_too(model, smaller):
    tokenizer = Tokenizer.train(["a"])
    model = telling_model(dataclasses.replace(SHAPE, vocab_size=tokenizer.vocab_size))
    stop = Request((3, 4), Sampling(max_tokens=60, temperature=1.0, stop=("a", "Q", "7")))
    requests = [*stop.candidates(3), *Request((9,) * 20, Sampling(max_tokens=30, temperature=0.9)).candidates(3)]
    found = []
    for drafter in (None, Cheap(model), PromptLookup(min_ngram=1)):
        how = SchedulerSettings(max_running=8, token_budget=60)
        engine = Engine(model, tokenizer=tokenizer, scheduling=how, drafter=drafter)
        found.append([(c.tokens, c.text, c.stop, c.finish) for c in run(engine, requests)])
    assert found[0] == found[1] == found[2]


def test_a_grammar_bounds_what_is_accepted(model, smaller):
    requests = [dataclasses.replace(r, grammar=OnlyEven()) for r in requests_of(8, seed=5, temperature=1.2)]
    expected = run(drafted(model, None), requests)
    for drafter in drafters(model, smaller, requests, expected).values():
        assert_equal(run(drafted(model, drafter), requests), expected)


def test_what_a_grammar_forces_comes_in_one_pass_with_or_without_a_drafter(model):
    requests = [dataclasses.replace(r, grammar=Refrain()) for r in requests_of(6, seed=7, max_tokens=33, stop_ids=())]
    expected = run(drafted(model, None, max_drafting=0), requests)
    for drafter in (None, PromptLookup(min_ngram=1), Oracle(lies=0.5)):
        engine = drafted(model, drafter)
        assert_equal(run(engine, requests), expected)
        assert engine.drafting.forced == 6 * 25  # four of each group of five, and one of the last two
    engine = drafted(model, None)
    engine.submit(requests[0])
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    assert steps == 8  # the first token; six times four that are forced and a free one; the last two


def test_the_distribution_is_the_models():
    """Of 2,000 pairs of tokens over a vocabulary of five, against the model's own probabilities."""
    model = telling_model(LlamaConfig(5, 8, 2, 2, 1, 12, max_seq_len=16))
    with torch.no_grad():
        model.output_weight.mul_(0.3)  # nothing is so rare that a chi-square test would not hold
    first = torch.tensor([[1, 2]])
    with torch.no_grad():
        start = model.logits(model(first)[0, -1]).double().softmax(-1).numpy()
        after = [model.logits(model(torch.tensor([[1, 2, t]]))[0, -1]).double().softmax(-1).numpy() for t in range(5)]
    expected = np.array([start[a] * after[a][b] for a in range(5) for b in range(5)])
    other = telling_model(LlamaConfig(5, 8, 1, 2, 1, 12, max_seq_len=16))
    for drafter in (Cheap(other), Oracle(lies=1.0), PromptLookup(min_ngram=1)):
        engine = Engine(model, scheduling=SchedulerSettings(max_drafting=64), drafter=drafter)
        requests = [Request((1, 2), Sampling(max_tokens=3, seed=seed)) for seed in range(2000)]
        handles = [engine.submit(request) for request in requests[:1000]]
        counts = Counter()
        for batch in range(2):
            while engine.busy:
                counts.update(completion.tokens[:2] for _, completion in engine.step().finished)
            handles = [engine.submit(request) for request in requests[1000 * (batch + 1) : 1000 * (batch + 2)]]
        assert not handles
        assert engine.drafting.drafted > 1000 or isinstance(drafter, PromptLookup)
        observed = np.array([counts[a, b] for a in range(5) for b in range(5)])
        assert observed.sum() == 2000
        assert chisquare(observed, expected * 2000).pvalue > 1e-4


@settings(max_examples=12)
@given(st.data())
def test_random_streams_with_drafts_keep_the_books(data):
    model, _ = model_and_smaller()
    requests = requests_of(14, seed=data.draw(st.integers(0, 5)), temperature=data.draw(st.sampled_from([0.0, 1.0])))
    expected = [c.tokens for c in run(drafted(model, None), requests)]
    answers = [(r.prompt, t) for r, t in zip(requests, expected, strict=True)]
    kind = data.draw(st.sampled_from(["liar", "model", "look-up"]))
    lies, seed = data.draw(st.sampled_from([0.0, 0.1, 0.5])), data.draw(st.integers(0, 99))
    drafter = {
        "liar": Oracle(answers, lies, seed),
        "model": Cheap(model, max_draft=3),
        "look-up": PromptLookup(min_ngram=1),
    }[kind]
    budget = data.draw(st.integers(9, 40))
    engine = Engine(
        model,
        scheduling=SchedulerSettings(max_running=8, token_budget=budget, max_drafting=8, patience=3),
        cache_tokens=data.draw(st.integers(5, 40)) * PAGE,
        drafter=drafter,
    )
    waiting, handles, done, gone = list(enumerate(requests)), {}, {}, set()
    while waiting or engine.busy:
        if waiting and (not engine.busy or data.draw(st.booleans())):
            i, request = waiting.pop()
            handles[engine.submit(request, priority=i % 3)] = i
        done.update(engine.step().finished)
        if handles and data.draw(st.integers(0, 9)) == 0:
            handle = data.draw(st.sampled_from(sorted(handles)))
            if engine.cancel(handle):
                gone.add(handle)
        scheduler = engine.continuous.scheduler
        scheduler.check()
        drafts = engine.continuous.speculation._drafts
        if kind == "model":
            drafts.pool.check(reader.table for reader in drafts.readers.values())
            assert set(drafts.readers) <= set(handles) - set(done) - gone
    assert set(done) | gone == set(handles)
    assert all(completion.tokens == expected[handles[handle]] for handle, completion in done.items())
    assert engine.continuous.scheduler.pool.available == engine.continuous.scheduler.pool.count
    assert engine.drafting.failure == ""
