"""Drafters for the tests of speculation, honest and not, and grammars that follow what was said."""

import dataclasses
from functools import lru_cache

import numpy as np
from generate_models import run as run_plainly
from generate_models import telling_model

from herd.generate import Request, Sampling
from herd.generate.engine import Engine
from herd.generate.model_drafter import ModelDrafter
from herd.generate.pages import PAGE
from herd.generate.prompt_lookup import PromptLookup
from herd.generate.settings import SchedulerSettings
from herd.llama.config import LlamaConfig

VOCABULARY = 89
SHAPE = LlamaConfig(VOCABULARY, 32, 3, 4, 2, 48, max_seq_len=160, tie_embeddings=True)


@lru_cache
def model_and_smaller():
    """A model, and its first layers: a little off, they agree often, not always."""
    model, small = telling_model(SHAPE), telling_model(dataclasses.replace(SHAPE, n_layers=2))
    small.load_state_dict(model.state_dict(), strict=False)
    return model, small


class Oracle:
    """Knows what will be said, and lies now and then; of other texts it says whatever comes to mind."""

    max_draft, cost = 6, 0.0

    def __init__(self, answers=(), lies=0.3, seed=0):
        self.answers, self.lies, self.seed = list(answers), lies, seed
        self.ended = []

    def check(self, target=None):
        pass

    forget = check

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
    """`generate_models.run`, the scheduler's books looked at after every step."""
    return run_plainly(engine, requests, after_step=engine.continuous.scheduler.check)


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
