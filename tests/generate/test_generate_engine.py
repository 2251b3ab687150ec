"""The engine against a naive loop that runs the whole model for every token."""

import dataclasses

import numpy as np
import pytest
import torch
from generate_models import telling_model

from herd.errors import InputError, SettingError
from herd.generate import Request, Sampling
from herd.generate import engine as engine_module
from herd.generate.continuous import Continuous
from herd.generate.engine import Engine
from herd.generate.sampling import Chances, sample, uniforms
from herd.llama.config import LlamaConfig

VOCABULARY = 97


@pytest.fixture(scope="module")
def model():
    return telling_model(LlamaConfig(VOCABULARY, 32, 2, 4, 2, 48, max_seq_len=64, tie_embeddings=True))


def make_requests(n, seed=0, **settings):
    rng = np.random.default_rng(seed)
    how = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 12, "stop_ids": (5, 17), **settings}
    prompts = [tuple(rng.integers(0, VOCABULARY, rng.integers(1, 30)).tolist()) for _ in range(n)]
    return [Request(prompt, Sampling(seed=i, **how)) for i, prompt in enumerate(prompts)]


@torch.no_grad()
def naive(model, request):
    """One request, no cache, no batch."""
    how, ids, logprobs = request.sampling, list(request.prompt), []
    for step in range(how.max_tokens):
        if len(ids) >= model.config.max_seq_len:
            break
        logits = model.logits(model(torch.tensor([ids]))[:, -1])
        chance = uniforms(np.array([how.seed], np.uint64), np.array([step]))
        token, logprob = sample(logits, Chances(np.float32([how.temperature]), np.float32([how.top_p]), chance))
        ids.append(int(token))
        logprobs.append(float(logprob))
        if int(token) in how.stop_ids:
            return ids[len(request.prompt) :], logprobs, "stop"
    return ids[len(request.prompt) :], logprobs, "length"


def assert_same(completion, expected):
    tokens, logprobs, finish = expected
    assert list(completion.tokens) == tokens
    np.testing.assert_allclose(completion.logprobs, logprobs, rtol=1e-4, atol=1e-5)
    assert completion.finish == finish


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_tokens_as_the_naive_loop_in_any_batch(model, temperature):
    requests = make_requests(32, temperature=temperature, max_tokens=8)
    expected = [naive(model, request) for request in requests]
    for batch_size in (1, 7, 32):
        completions = Engine(model, batch_size=batch_size).generate(requests)
        for completion, one in zip(completions, expected, strict=True):
            assert_same(completion, one)
    assert {finish for *_, finish in expected} == {"stop", "length"}


def test_requests_of_all_lengths_and_settings_together(model):
    rng = np.random.default_rng(5)
    requests = []
    for i, request in enumerate(make_requests(24, seed=5)):
        how = Sampling(
            temperature=float(rng.choice([0.0, 0.7, 1.3])),
            top_p=float(rng.choice([0.5, 1.0])),
            max_tokens=int(rng.integers(1, 40)),
            stop_ids=tuple(rng.integers(0, VOCABULARY, rng.integers(0, 4)).tolist()),
            seed=i - 3,  # negative seeds too
        )
        requests.append(Request(request.prompt, how))
    completions = Engine(model, batch_size=8, cache_tokens=300).generate(requests)
    for request, completion in zip(requests, completions, strict=True):
        positive = dataclasses.replace(request.sampling, seed=request.sampling.seed % 2**64)
        assert_same(completion, naive(model, Request(request.prompt, positive)))


@torch.no_grad()
def test_logprobs_are_those_of_a_full_pass(model):
    for request, completion in zip(
        requests := make_requests(20, seed=9), Engine(model).generate(requests), strict=True
    ):
        ids = torch.tensor([[*request.prompt, *completion.tokens]])
        logits = model.logits(model(ids))[0, len(request.prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(1, ids[0, len(request.prompt) :, None]).squeeze(1)
        np.testing.assert_allclose(completion.logprobs, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_equal_prompts_are_computed_once(model):
    prompts = [r.prompt for r in make_requests(3, seed=11)] + [(1, 2, 3, 4)]
    requests = [
        Request(prompt, Sampling(max_tokens=8, seed=8 * i + k)) for k in range(8) for i, prompt in enumerate(prompts)
    ]
    shared = Engine(model).generate(requests)
    assert sum(c.cached for c in shared) == 7 * sum(map(len, prompts))
    assert len({c.tokens for c in shared}) > 24  # the candidates of a prompt differ
    for request, completion in zip(requests, shared, strict=True):
        assert Engine(model).generate([request])[0].tokens == completion.tokens


def test_small_prefills_give_the_same(model, monkeypatch):
    requests = make_requests(30, seed=13)
    expected = Engine(model).generate(requests)
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 40)
    assert [c.tokens for c in Engine(model).generate(requests)] == [c.tokens for c in expected]


def test_same_seed_same_tokens_other_seed_other_tokens(model):
    requests = make_requests(16, stop_ids=())
    first, second = (Engine(model, batch_size=b).generate(requests) for b in (16, 5))
    assert [c.tokens for c in first] == [c.tokens for c in second]
    other = [Request(r.prompt, dataclasses.replace(r.sampling, seed=r.sampling.seed + 1000)) for r in requests]
    assert all(a.tokens != b.tokens for a, b in zip(first, Engine(model).generate(other), strict=True))


def test_a_stop_id_is_the_last_token_and_only_the_last(model):
    for request, completion in zip(
        requests := make_requests(40, seed=2), Engine(model).generate(requests), strict=True
    ):
        stops = [t in request.sampling.stop_ids for t in completion.tokens]
        assert stops.index(True) == len(stops) - 1 if completion.finish == "stop" else not any(stops)
        assert len(completion.tokens) == len(completion.logprobs) <= 12


def test_generation_ends_where_the_context_ends(model):
    requests = [Request(tuple(range(63)), Sampling(max_tokens=9)), Request(tuple(range(60)), Sampling(max_tokens=9))]
    completions = Engine(model).generate(requests)
    assert [len(c.tokens) for c in completions] == [1, 4]
    assert all(c.finish == "length" for c in completions)
    assert_same(completions[1], naive(model, requests[1]))


def test_stream_gives_what_generate_gives(model):
    for request in make_requests(6, seed=4):
        [completion] = Engine(model).generate([request])
        streamed = list(Engine(model).stream(request))
        assert tuple(token for token, _ in streamed) == completion.tokens
        np.testing.assert_allclose([logprob for _, logprob in streamed], completion.logprobs, rtol=1e-5)


def test_a_stream_leaves_gradients_to_its_caller(model):
    for _ in Engine(model).stream(Request((1, 2), Sampling(max_tokens=3))):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((), "empty prompt"),
        (tuple(range(64)), "63 tokens or fewer"),
        ((1, VOCABULARY), "outside the model's vocabulary"),
        ((-1, 1), "outside the model's vocabulary"),
    ],
)
def test_impossible_prompts_are_refused_before_any_work(model, prompt, message):
    with pytest.raises(InputError, match=message) as caught:
        Engine(model).generate([Request((1, 2)), Request(prompt)])
    assert "request 1" in str(caught.value)
    with pytest.raises(InputError, match=message):
        Engine(model).stream(Request(prompt))


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_tokens": 0}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        Sampling(**settings)
    with pytest.raises(SettingError, match="batch_size"):
        Engine(None, batch_size=0)


def test_nothing_to_do(model):
    assert Engine(model).generate([]) == []


def test_progress_counts_every_request(model):
    seen = []

    class Watching:
        def update(self, done, total, unit, facts=None):
            seen.append((done, total, unit, set(facts)))

        def note(self, text):
            raise AssertionError(text)

    Engine(model, batch_size=4).generate(make_requests(10), Watching())
    assert seen[-1] == (10, 10, "requests", {"tokens/s"})
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_no_row_waits_while_requests_do(model, monkeypatch):
    # 40 requests through 8 rows: with refilling, far fewer steps than five batches that each wait for their longest.
    steps = []
    step = Continuous.step
    monkeypatch.setattr(Continuous, "step", lambda self: (steps.append(1), step(self))[1])
    lengths = [1 + 29 * (i % 8 == 0) for i in range(40)]
    requests = [Request((i, 2, 3), Sampling(max_tokens=30, stop_ids=(), seed=i)) for i in range(40)]
    requests = [
        Request(r.prompt, dataclasses.replace(r.sampling, max_tokens=max(16, n)))
        for r, n in zip(requests, lengths, strict=True)
    ]
    Engine(model, batch_size=8).generate(requests)
    useful = sum(r.sampling.max_tokens for r in requests)
    assert 8 * len(steps) < 1.3 * useful
