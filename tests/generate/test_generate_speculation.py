"""Speculative decoding: the same tokens and log-probabilities as without it, whatever is guessed."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from generate_models import telling_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from herd.errors import SettingError
from herd.generate import Request, Sampling, model_drafter
from herd.generate.engine import Engine
from herd.generate.model_drafter import ModelDrafter
from herd.generate.pages import PAGE, Pages
from herd.generate.prompt_lookup import PromptLookup, look_up
from herd.generate.sampling import uniforms
from herd.generate.settings import SchedulerSettings
from herd.generate.speculation import Pace, Statistics
from herd.kernels import library
from herd.llama.config import LlamaConfig
from herd.text.tokenizer import Tokenizer

VOCABULARY = 89
SHAPE = LlamaConfig(VOCABULARY, 32, 3, 4, 2, 48, max_seq_len=160, tie_embeddings=True)


@pytest.fixture(scope="module")
def model():
    return telling_model(SHAPE)


@pytest.fixture(scope="module")
def smaller(model):
    """The model's first layers, a little off: it agrees often, not always."""
    small = telling_model(dataclasses.replace(SHAPE, n_layers=2))
    small.load_state_dict(model.state_dict(), strict=False)
    return small


class Oracle:
    """Knows what will be said, and lies now and then; at every second step it says nothing."""

    max_draft, cost = 6, 0.0

    def __init__(self, answers=(), lies=0.3, seed=0):
        self.answers, self.lies, self.seed = list(answers), lies, seed
        self.ended = []

    def open(self, target):
        self.rng, self.calls, self.size = np.random.default_rng(self.seed), 0, target.vocab_size
        return self

    def draft(self, wanted):
        self.calls += 1
        return [self._guess(one) for one in wanted]

    def _guess(self, one):
        known = next((a for p, a in self.answers if [*p, *a][: len(one.tokens)] == list(one.tokens)), ())
        guesses = list(known[one.n_said : one.n_said + one.most]) or self.rng.integers(0, self.size, one.most).tolist()
        return [int(self.rng.integers(0, self.size)) if self.rng.random() < self.lies else g for g in guesses]

    def end(self, number):
        self.ended.append(number)


def requests_of(n, seed=0, **settings):
    rng = np.random.default_rng(seed)
    phrase = rng.integers(0, VOCABULARY, 7).tolist()
    found = []
    for i in range(n):
        prompt = phrase * int(rng.integers(1, 5)) + rng.integers(0, VOCABULARY, int(rng.integers(1, 9))).tolist()
        how = {"max_tokens": int(rng.integers(1, 40)), "stop_ids": (5, 17), "seed": i, **settings}
        found.append(Request(tuple(prompt), Sampling(**how)))
    return found


def run(engine, requests):
    handles = [engine.submit(request) for request in requests]
    done, came = {}, {handle: [] for handle in handles}
    while engine.busy:
        step = engine.step()
        for one in step.sampled:
            came[one.number].append(one)
        done.update(step.finished)
        engine.continuous.scheduler.check()
    for handle, completion in done.items():
        assert tuple(one.token for one in came[handle]) == completion.tokens
        assert tuple(one.logprob for one in came[handle]) == completion.logprobs
        assert tuple(one.top for one in came[handle] if one.top) == completion.top_logprobs
    return [done[handle] for handle in handles]


def drafted(model, drafter, **options):
    how = {"max_running": 8, "token_budget": 60, "max_drafting": 8} | options
    return Engine(model, scheduling=SchedulerSettings(**how), drafter=drafter, cache_tokens=120 * PAGE)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.finish == other.finish
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        tops = [[[token for token, _ in top] for top in c.top_logprobs] for c in (one, other)]
        assert tops[0] == tops[1]


def drafters(model, smaller, requests, expected):
    answers = [(r.prompt, c.tokens) for r, c in zip(requests, expected, strict=True)]
    return {
        "look-up": PromptLookup(min_ngram=1),
        "small model": Cheap(smaller),
        "the model itself": Cheap(model),
        "oracle": Oracle(answers, lies=0.0),
        "liar": Oracle(answers, lies=0.3),
        "fool": Oracle(lies=1.0),
    }


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


class Cheap(ModelDrafter):
    """Its guesses count as free: here it is as large as the model that it drafts for, and would not pay."""

    def open(self, target):
        drafts = super().open(target)
        assert drafts.cost > 0.5
        drafts.cost = 0.0
        return drafts


class OnlyEven:
    """A grammar of two states: an even id, then one of its neighbours or a stop id."""

    def __init__(self, last=None):
        self.last = last

    def start(self):
        return OnlyEven()

    def mask(self):
        ids = np.arange(VOCABULARY)
        return ids % 2 == 0 if self.last is None else (np.abs(ids - self.last) <= 8) | (ids == 17)

    def advance(self, token):
        self.last = token

    def forced(self):
        return ()


class Refrain:
    """A grammar that leaves no choice but at every fifth token."""

    def __init__(self, said=0):
        self.said = said

    def start(self):
        return Refrain()

    def mask(self):
        ids = np.arange(VOCABULARY)
        return ids % 3 == 0 if self.said % 5 == 0 else ids == 20 + self.said % 5

    def advance(self, token):
        self.said += 1

    def forced(self):
        return [20 + i for i in range(self.said % 5, 5)] if self.said % 5 else []


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


@settings(max_examples=12)
@given(st.data())
def test_random_streams_with_drafts_keep_the_books(data):
    model = _model()
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


def _model(made=[]):  # noqa: B006
    if not made:
        made.append(telling_model(SHAPE))
    return made[0]


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
        Engine(models[0], tokenizer=one, drafter=ModelDrafter(models[1], other)).submit(Request((1,)))
    assert one.fingerprint[:16] in caught.value.message
    assert other.fingerprint[:16] in caught.value.message
    with pytest.raises(SettingError, match=f"{other.vocab_size} ids"):
        Engine(models[0], drafter=ModelDrafter(models[1])).submit(Request((1,)))
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


def test_statistics_begin_with_nothing(model):
    assert Engine(model, drafter=PromptLookup()).drafting == Statistics()
    assert Engine(model).drafting == Statistics()
