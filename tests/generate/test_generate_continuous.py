"""Continuous batching over pages: the texts of `generate`, the log-probabilities of the trainer, nothing lost."""

import dataclasses

import numpy as np
import pytest
import torch
from generate_models import run, telling_model

from herd.errors import ArtifactError, BusyError, InputError
from herd.generate import Request, Sampling
from herd.generate import torch_paged as paged_module
from herd.generate import torch_work as work_module
from herd.generate.continuous import PAGE, Continuous
from herd.generate.engine import Engine
from herd.generate.settings import SchedulerSettings
from herd.kernels import library
from herd.llama.config import LlamaConfig
from herd.llama.loss import token_logprobs
from herd.quantize.fp8 import quantize_model

VOCABULARY = 89
SHAPE = LlamaConfig(VOCABULARY, 32, 3, 4, 2, 48, max_seq_len=128, tie_embeddings=True)


@pytest.fixture(scope="module")
def model():
    return telling_model(SHAPE)


def make_requests(n, seed=0, **settings):
    """Some with a beginning in common, some equal but for the seed, some of one token."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, VOCABULARY, 40).tolist()
    requests = []
    for i in range(n):
        length = int(rng.integers(1, 50))
        prompt = rng.integers(0, VOCABULARY, length).tolist()
        prompt = [common + prompt[:20], prompt, common, prompt][i % 4]
        how = {"max_tokens": int(rng.integers(1, 20)), "stop_ids": (5, 17), "seed": i, **settings}
        requests.append(Request(tuple(prompt), Sampling(**how)))
    return requests


def settings_of(**changed):
    return SchedulerSettings(**({"max_running": 8, "token_budget": 40} | changed))


@torch.no_grad()
def trainers_logprobs(model, request, completion):
    ids = torch.tensor([[*request.prompt, *completion.tokens]])
    hidden = model(ids)[0, len(request.prompt) - 1 : -1]
    return token_logprobs(hidden, model.output_weight, ids[0, len(request.prompt) :]).numpy()


VARIANTS = {
    "alone": settings_of(max_running=1, token_budget=400),
    "in a batch of 32": settings_of(max_running=32, token_budget=2000),
    "in small chunks": settings_of(max_running=8, token_budget=11),
    "without sharing": settings_of(max_running=32, token_budget=70, share=False),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_and_logprobs_are_those_of_the_trainer_however_they_are_computed(model, temperature):
    requests = make_requests(32, temperature=temperature)
    plain = Engine(model).generate(requests)
    for settings in VARIANTS.values():
        for request, expected, found in zip(
            requests, plain, run(Engine(model, scheduling=settings), requests), strict=True
        ):
            assert found.tokens == expected.tokens
            assert found.finish == expected.finish
            np.testing.assert_allclose(found.logprobs, trainers_logprobs(model, request, found), atol=1e-5)


@pytest.fixture
def in_torch(monkeypatch):
    """As on a GPU, or where nothing was compiled."""
    monkeypatch.setenv(library.VARIABLE, library.TORCH)
    library.kernels.cache_clear()
    yield
    library.kernels.cache_clear()


@pytest.mark.usefixtures("in_torch")
def test_long_prompts_go_a_few_queries_at_a_time(model, monkeypatch):
    requests = [r for r in make_requests(12, temperature=0.0) if len(r.prompt) > 20]
    expected = run(Engine(model, scheduling=settings_of()), requests)
    monkeypatch.setattr(paged_module, "_SCORES", 50)
    found = run(Engine(model, scheduling=settings_of(token_budget=20)), requests)
    assert [c.tokens for c in found] == [c.tokens for c in expected]


@pytest.mark.usefixtures("in_torch")
@pytest.mark.parametrize("saved", [1, 10**9])
def test_a_beginning_in_common_is_read_once_or_by_each(model, monkeypatch, saved):
    monkeypatch.setattr(work_module, "_SAVED", saved)
    used = []
    attend_shared = paged_module.attend_shared
    monkeypatch.setattr(paged_module, "attend_shared", lambda *given: (used.append(1), attend_shared(*given))[1])
    requests = [c for r in make_requests(8, seed=7) for c in r.candidates(3)]
    requests += [Request(tuple(range(40)) + tail, Sampling(max_tokens=40, seed=9)) for tail in ((), (1,) * 30)]
    plain = Engine(model).generate(requests)
    for expected, found in zip(plain, run(Engine(model, scheduling=settings_of()), requests), strict=True):
        assert found.tokens == expected.tokens
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    assert bool(used) == (saved == 1)


def test_heads_that_share_none_and_quantised_layers():
    config = dataclasses.replace(SHAPE, n_layers=4, n_kv_heads=4, tie_embeddings=False)
    model = telling_model(config)
    quantize_model(model)
    requests = make_requests(12, temperature=0.0)
    found, expected = run(Engine(model, scheduling=settings_of()), requests), Engine(model).generate(requests)
    assert [c.tokens for c in found] == [c.tokens for c in expected]


def test_every_setting_works_over_pages(model):
    rng = np.random.default_rng(2)
    how = {"repetition_penalty": 1.2, "frequency_penalty": 0.2, "top_k": 20, "min_p": 0.02, "logit_bias": {3: 2.0}}
    requests = []
    for i, request in enumerate(make_requests(24, seed=6)):
        names = [name for name in how if rng.random() < 0.5]
        more = {name: how[name] for name in names} | {"top_logprobs": i % 3, "prompt_logprobs": i % 4 == 0}
        stop_ids = tuple(range(i % 7))  # more than one row's width of them
        requests.append(Request(request.prompt, dataclasses.replace(request.sampling, **more, stop_ids=stop_ids)))
    expected = Engine(model).generate(requests)
    for found, one in zip(run(Engine(model, scheduling=settings_of()), requests), expected, strict=True):
        assert found.tokens == one.tokens
        for name in ("logprobs", "prompt_logprobs"):
            np.testing.assert_allclose(getattr(found, name), getattr(one, name), atol=1e-5)
        for name in ("top_logprobs", "prompt_top_logprobs"):
            ids = [[[token for token, _ in top] for top in getattr(c, name)] for c in (found, one)]
            assert ids[0] == ids[1]


def count_tokens(batch):
    seen, plan = [], batch.scheduler.plan
    batch.scheduler.plan = lambda *given: (seen.append(made := plan(*given)), made)[1]
    return lambda: sum(made.n_tokens for made in seen)


def test_candidates_share_their_prompt_and_later_requests_find_it(model):
    engine = Engine(model, scheduling=settings_of(max_running=16, token_budget=200))
    count = count_tokens(engine.continuous)
    first = Request(tuple(range(70)), Sampling(max_tokens=1))
    assert [c.cached for c in run(engine, first.candidates(16))] == [0] + [70] * 15
    assert count() == 70
    [longer] = run(engine, [Request((*range(70), 1, 2), Sampling(max_tokens=1))])
    assert longer.cached == 4 * PAGE
    assert count() == 70 + 72 - 4 * PAGE
    run(engine, [Request(tuple(range(1, 70)), Sampling(max_tokens=1))])
    assert count() == 70 + 72 - 4 * PAGE + 69
    engine.forget()
    run(engine, [first])
    assert count() == 70 + 72 - 4 * PAGE + 69 + 70


def test_generate_needs_no_more_rows_or_room_than_it_is_given(model):
    requests = [c for r in make_requests(9, seed=11) for c in r.candidates(3)] + make_requests(9, seed=12)
    expected = Engine(model).generate(requests)
    for options in ({"batch_size": 4}, {"cache_tokens": 70}, {"cache_tokens": 1}):  # one request always has room
        found = Engine(model, **options).generate(requests)
        assert [c.tokens for c in found] == [c.tokens for c in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_any_of_them_can_be_cancelled_at_any_token(model):
    engine = Engine(model, scheduling=settings_of(), cache_tokens=40 * PAGE)
    requests = make_requests(40, seed=5)
    expected = dict(enumerate(Engine(model).generate(requests)))
    rng = np.random.default_rng(0)
    handles = {engine.submit(request): i for i, request in enumerate(requests)}
    done, gone = {}, set()
    while engine.busy:
        done.update(engine.step().finished)
        handle = int(rng.integers(0, 40))
        if engine.cancel(handle):
            gone.add(handle)
        engine.continuous.scheduler.check()
    assert set(done) | gone == set(handles)
    assert not set(done) & gone
    assert len(done) > 5
    assert len(gone) > 5
    assert all(completion.tokens == expected[handles[handle]].tokens for handle, completion in done.items())
    assert engine.step().sampled == []
    assert not engine.cancel(0)


def test_a_small_cache_makes_requests_wait_and_refuses_what_never_fits(model):
    engine = Engine(model, scheduling=settings_of(), cache_tokens=5 * PAGE)
    requests = make_requests(12, seed=3)
    small = [r for r in requests if len(r.prompt) + r.sampling.max_tokens <= 5 * PAGE]
    expected = Engine(model).generate(small)
    assert [c.tokens for c in run(engine, small)] == [c.tokens for c in expected]
    with pytest.raises(InputError, match="6 pages of 16 tokens, the cache has 5"):
        engine.submit(Request((1,) * 80, Sampling(max_tokens=10)))
    with pytest.raises(InputError, match="127 tokens or fewer"):
        engine.submit(Request((1,) * 128))


def test_a_full_queue_refuses_and_takes_again(model):
    engine = Engine(model, scheduling=settings_of(max_waiting=2))
    for _ in range(2):
        engine.submit(Request((1, 2), Sampling(max_tokens=2)))
    with pytest.raises(BusyError, match="2 requests wait"):
        engine.submit(Request((1, 2)))
    engine.step()
    engine.submit(Request((1, 2), Sampling(max_tokens=2)))


def test_memory_is_known_before_a_request_is_taken(model):
    batch = Continuous(model, cache_tokens=100 * PAGE)
    per_token = SHAPE.cache_bytes_per_token(4)
    assert batch.bytes_of(Request((1,) * 30, Sampling(max_tokens=3))) == 2 * PAGE * per_token
    assert batch.bytes_of(Request((1,) * 30, Sampling(max_tokens=4))) == 3 * PAGE * per_token
    assert batch.bytes_of(Request((1,) * 120, Sampling(max_tokens=1000))) == 8 * PAGE * per_token


def test_a_pass_that_fails_leaves_nothing_behind(model):
    broken = telling_model(SHAPE)
    engine = Engine(broken, scheduling=settings_of())
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="not finite"):
        run(engine, make_requests(5))
    engine.continuous.scheduler.check()
    with torch.no_grad():
        broken.model.norm.weight.fill_(1.0)
    for handle in range(5):
        engine.cancel(handle)
    engine.forget()
    [found] = run(engine, [Request((1, 2, 3), Sampling(max_tokens=5))])
    assert len(found.tokens) == 5


def test_the_model_itself_stays_as_it_was(model):
    names = [name for name, _ in model.named_modules()]
    run(Engine(model, scheduling=settings_of()), make_requests(3))
    assert [name for name, _ in model.named_modules()] == names
