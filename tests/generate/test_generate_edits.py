"""The settings of sampling against transformers' logits processors, an independent implementation of most of them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from generate_models import telling_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from herd.errors import InputError, SettingError
from herd.generate import Request, Sampling
from herd.generate.edits import Edits, apply_edits
from herd.generate.engine import Engine
from herd.generate.sampling import Chances, truncated
from herd.llama.config import LlamaConfig

VOCABULARY = 83


class Banned:
    """A grammar that forbids the id before the last token, and ends after some tokens where it is told so."""

    def __init__(self, vocabulary=VOCABULARY, ends_after=None):
        self.vocabulary, self.ends_after = vocabulary, ends_after

    def start(self):
        return BannedState(self)


class BannedState:
    def __init__(self, grammar):
        self.grammar, self.tokens = grammar, []

    def mask(self):
        allowed = np.ones(self.grammar.vocabulary, bool)
        if self.tokens:
            allowed[self.tokens[-1] - 1] = False
        if self.grammar.ends_after is not None and len(self.tokens) >= self.grammar.ends_after:
            allowed[:] = False
        return allowed

    def advance(self, token):
        assert self.mask()[token]
        self.tokens.append(token)

    def forced(self):
        return ()


def theirs(logits_V, prompt, said, how, grammar=None):
    """Logits as transformers leaves them, in the order of its `generate`; frequency and presence as OpenAI says."""
    ids, scores = torch.tensor([[*prompt, *said]]), torch.tensor(logits_V)[None]
    if grammar is not None:
        state = grammar.start()
        for token in said:
            state.advance(token)
        allowed = np.flatnonzero(state.mask()).tolist()
        scores = PrefixConstrainedLogitsProcessor(lambda batch, sentence: allowed, 1)(ids, scores)
    if how.logit_bias:
        scores = SequenceBiasLogitsProcessor({(token,): by for token, by in how.logit_bias})(ids, scores)
    if how.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(how.repetition_penalty)(ids, scores)
    for token in set(said):
        scores[0, token] -= said.count(token) * how.frequency_penalty + how.presence_penalty
    if how.temperature == 0:
        return scores[0]
    scores = TemperatureLogitsWarper(how.temperature)(ids, scores)
    if how.top_k:
        scores = TopKLogitsWarper(how.top_k)(ids, scores)
    if how.top_p < 1:
        scores = TopPLogitsWarper(how.top_p)(ids, scores)
    if how.min_p:
        scores = MinPLogitsWarper(how.min_p)(ids, scores)
    return scores[0]


def ours(logits_V, prompt, said, how, grammar=None):
    """The probabilities that this engine draws by."""
    edits = Edits(Request(prompt, how, grammar), VOCABULARY)
    for token in said:
        edits.advance(token)
    logits = torch.tensor(logits_V)[None]
    apply_edits(logits, [edits])
    top = logits.amax(1, keepdim=True)
    one = (np.float32([value]) for value in (how.temperature, how.top_p, 0.5))
    chances = Chances(*one, np.array([how.top_k]), np.float32([how.min_p]))
    weights = truncated(logits, top, (logits - top).exp(), chances)
    return (weights / weights.sum())[0]


def draw_sampling(rng, temperature=None):
    pick = rng.choice
    bias = {int(token): float(rng.uniform(-5, 5)) for token in rng.choice(VOCABULARY, pick([0, 4]), replace=False)}
    return Sampling(
        temperature=float(pick([0.5, 1.0, 1.8])) if temperature is None else temperature,
        top_p=float(pick([1.0, 0.9, 0.4])),
        top_k=int(pick([0, 1, 7, 200])),
        min_p=float(pick([0.0, 0.05, 0.4])),
        repetition_penalty=float(pick([1.0, 1.3, 0.8])),
        presence_penalty=float(pick([0.0, 0.7, -0.5])),
        frequency_penalty=float(pick([0.0, 0.4, -0.3])),
        logit_bias=bias,
        seed=int(rng.integers(1000)),
        max_tokens=int(rng.integers(1, 14)),
    )


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 100_000), st.booleans())
def test_every_setting_does_what_transformers_does(seed, constrained):
    rng = np.random.default_rng(seed)
    how = draw_sampling(rng)
    prompt, said = (tuple(rng.integers(2, VOCABULARY, n).tolist()) for n in (9, 6))
    grammar = Banned() if constrained and all(b != a - 1 for a, b in itertools.pairwise(said)) else None
    logits = rng.normal(0, 3, VOCABULARY).astype(np.float32)
    expected = theirs(logits, prompt, said, how, grammar).softmax(0)
    found = ours(logits, prompt, said, how, grammar)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(found > 0, expected > 0)


def test_rows_of_a_batch_are_edited_each_by_its_own_settings():
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(0, 3, (12, VOCABULARY)).astype(np.float32))
    requests = [
        Request(tuple(rng.integers(1, VOCABULARY, 5).tolist()), draw_sampling(rng), Banned() if i % 3 == 0 else None)
        for i in range(12)
    ]
    edits = [Edits(request, VOCABULARY) for request in requests]
    for row, each in enumerate(edits):
        for token in (row + 2, row + 4, row + 2):
            each.advance(token)
    together = logits.clone()
    apply_edits(together, edits)
    assert not torch.equal(together, logits)
    for row, each in enumerate(edits):
        alone = logits[row : row + 1].clone()
        apply_edits(alone, [each])
        assert torch.equal(together[row], alone[0])


@pytest.fixture(scope="module")
def model():
    return telling_model(LlamaConfig(VOCABULARY, 32, 2, 4, 2, 48, max_seq_len=64, tie_embeddings=True))


def mixed_requests(n, seed=0, temperature=None):
    rng = np.random.default_rng(seed)
    requests = []
    for i in range(n):
        how = Sampling() if i % 4 == 3 else draw_sampling(rng, temperature)
        how = dataclasses.replace(how, max_tokens=int(rng.integers(1, 14)), top_logprobs=int(rng.choice([0, 3])))
        prompt = tuple(rng.integers(1, VOCABULARY, rng.integers(1, 20)).tolist())
        requests.append(Request(prompt, how, Banned() if i % 5 == 0 else None))
    return requests


def test_a_request_gets_its_tokens_whoever_runs_beside_it(model):
    requests = mixed_requests(32)
    together = Engine(model, batch_size=32).generate(requests)
    for request, completion in zip(requests, together, strict=True):
        [alone] = Engine(model).generate([request])
        assert alone.tokens == completion.tokens
        np.testing.assert_allclose(alone.logprobs, completion.logprobs, rtol=1e-4, atol=1e-5)
        assert [len(top) for top in alone.top_logprobs] == [len(top) for top in completion.top_logprobs]


@torch.no_grad()
def test_greedy_text_with_penalties_is_that_of_transformers_processors(model):
    requests = mixed_requests(24, seed=4, temperature=0.0)
    for request, completion in zip(requests, Engine(model).generate(requests), strict=True):
        if request.sampling.temperature:
            continue
        said = []
        for _ in range(request.sampling.max_tokens):
            logits = model.logits(model(torch.tensor([[*request.prompt, *said]]))[0, -1]).numpy()
            said.append(int(theirs(logits, request.prompt, said, request.sampling, request.grammar).argmax()))
        assert list(completion.tokens) == said


@torch.no_grad()
def test_logprobs_are_the_models_own_whatever_is_edited(model):
    requests = [
        dataclasses.replace(
            r, sampling=dataclasses.replace(r.sampling, top_logprobs=n % 21, prompt_logprobs=n % 2 == 0)
        )
        for n, r in enumerate(mixed_requests(24, seed=8))
    ]
    for request, found in zip(requests, Engine(model, batch_size=7).generate(requests), strict=True):
        ids = torch.tensor([[*request.prompt, *found.tokens]])
        expected = torch.log_softmax(model.logits(model(ids))[0, :-1], -1)
        chosen = expected.gather(1, ids[0, 1:, None]).squeeze(1).tolist()
        start, how = len(request.prompt) - 1, request.sampling
        np.testing.assert_allclose(found.logprobs, chosen[start:], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.prompt_logprobs, chosen[:start] if how.prompt_logprobs else [], atol=1e-5)
        lists = [(found.top_logprobs, expected[start:]), (found.prompt_top_logprobs, expected[:start])]
        for top, rows in lists[: 2 if how.prompt_logprobs else 1] if how.top_logprobs else ():
            assert len(top) == len(rows)
            for alternatives, row in zip(top, rows, strict=True):
                best = row.topk(how.top_logprobs)
                assert [token for token, _ in alternatives] == best.indices.tolist()
                np.testing.assert_allclose([value for _, value in alternatives], best.values, atol=1e-5)
        if not how.top_logprobs:
            assert found.top_logprobs == found.prompt_top_logprobs == ()


def test_a_grammar_that_has_no_room_left_ends_the_completion(model):
    requests = [Request((1, 2), Sampling(max_tokens=9), Banned(ends_after=n)) for n in (1, 4, 9, 12)]
    found = Engine(model).generate(requests)
    assert [(len(c.tokens), c.finish) for c in found] == [(1, "stop"), (4, "stop"), (9, "stop"), (9, "length")]


@pytest.mark.parametrize(("grammar", "message"), [(Banned(82), "vocabulary 83"), (Banned(ends_after=0), "first token")])
def test_a_grammar_that_cannot_be_used_is_refused(model, grammar, message):
    with pytest.raises(InputError, match=message):
        Engine(model).generate([Request((1,), Sampling(), grammar)])


@pytest.mark.parametrize(
    "wrong",
    [
        *({"top_k": value} for value in (-1, 2.5, "3")),
        *({"min_p": value} for value in (-0.1, 1.1, float("nan"), None)),
        *({"repetition_penalty": value} for value in (0.0, -1.0, float("inf"), float("nan"))),
        *({name: value} for name in ("presence_penalty", "frequency_penalty") for value in (-2.1, 2.1, float("nan"))),
        *({"logit_bias": value} for value in ({-1: 1.0}, {1: 101.0}, {1: float("nan")}, ((1, 1.0), (1, 2.0)))),
        *({"stop": value} for value in ("", ("a", ""))),
        *({"top_logprobs": value} for value in (-1, 21)),
        {"temperature": "warm"},
        {"max_tokens": 1.5},
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(wrong):
    with pytest.raises(SettingError) as caught:
        Sampling(**wrong)
    assert caught.value.where == next(iter(wrong))
    assert caught.value.mend


def test_a_bias_on_an_id_that_the_model_has_not_is_refused_before_any_work(model):
    with pytest.raises(InputError, match="request 1") as caught:
        Engine(model).generate([Request((1,)), Request((1,), Sampling(logit_bias={VOCABULARY: 1.0}))])
    assert "logit_bias" in str(caught.value)


def test_candidates_differ_and_neighbouring_seeds_share_none(model):
    request = Request((3, 4), Sampling(seed=7, max_tokens=20))
    eight = request.candidates(8)
    assert eight[0] == request
    assert len({c.tokens for c in Engine(model).generate(eight)}) == 8
    beside = Request((3, 4), Sampling(seed=8, max_tokens=20)).candidates(8)
    assert not {one.sampling.seed for one in eight} & {one.sampling.seed for one in beside}
    assert request.candidates(3) == eight[:3]
    with pytest.raises(SettingError, match="n is 0"):
        request.candidates(0)
