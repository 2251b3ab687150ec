"""Speculative decoding of one sequence in the 1B shape, BF16: with guesses against without, the same tokens out.

"speculation-lookup": prompt look-up on a prompt of 512 tokens that repeats itself. "speculation-draft": a small model
drafts, the target's own first four of sixteen layers with its head. "speculation-known": guesses that are all right,
the most that seven guesses a pass can give. Weights are random, so how much is accepted says nothing of trained models;
it is told beside each row, for the gain is to be read together with it. The limit is
that of "known" in the same alternation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from bench.engine_models import models
from bench.harness import Row, make_row, seconds
from herd.generate.engine import Engine
from herd.generate.model_drafter import ModelDrafter
from herd.generate.prompt_lookup import PromptLookup
from herd.generate.protocol import Request, Sampling
from herd.generate.speculation import Drafter, Drafts, Target, Wanted
from herd.llama.model import Llama
from herd.weights.build import load_any

NEW_TOKENS = 48
PAIRS = 5


class Known:
    """Guesses what a text is known to go on with."""

    cost, max_draft = 0.0, 7

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)

    def check(self, target: Target | None = None) -> None:
        """Any model will do, and nothing is kept of a request."""

    def open(self, target: Target) -> Drafts:
        return self

    def draft(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        return [self._tokens[one.n_said : one.n_said + one.most] for one in wanted]

    def end(self, number: int) -> None:
        """Nothing is kept."""

    def forget(self) -> None:
        """Nothing is kept."""


def first_layers(model: Llama, n_layers: int) -> Llama:
    """A model of the first layers of another, over the same parameters."""
    with torch.device("meta"):
        small = Llama(replace(model.config, n_layers=n_layers)).eval()
    small.model.embed_tokens, small.model.norm = model.model.embed_tokens, model.model.norm
    small.model.layers = model.model.layers[:n_layers]
    if not model.config.tie_embeddings:
        small.lm_head = model.lm_head
    return small


def bench_speculation(name: str) -> list[Row]:
    with models() as made:
        model = load_any(made.bf16, dtype=torch.bfloat16).eval()
    phrase = torch.randint(0, model.config.vocab_size, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    request = Request(tuple(phrase * 8), Sampling(max_tokens=NEW_TOKENS, temperature=0.0))
    plain = Engine(model, cache_tokens=2048)
    known = Known(run(plain, request))
    made_for: dict[str, Callable[[], Drafter]] = {
        "known": lambda: known,
        "lookup": PromptLookup,
        "draft": lambda: ModelDrafter(first_layers(model, 4)),
    }
    engines = [Engine(model, cache_tokens=2048, drafter=each) for each in (made_for[name](), None, known)]
    rates: list[list[float]] = [[], [], []]
    for _ in range(PAIRS + 1):
        for engine, rate in zip(engines, rates, strict=True):
            run(engine, replace(request, sampling=replace(request.sampling, max_tokens=1)))  # the prompt is known then
            rate.append(NEW_TOKENS / seconds(partial(run, engine, request)))
    counted = engines[0].drafting
    note = f"without guesses ({counted.accepted / max(counted.drafted, 1):.0%} of {counted.drafted} accepted)"
    return [make_row(f"speculation-{name}", "tokens/s", rates[0][1:], rates[1][1:], note, rates[2][1:])]


def run(engine: Engine, request: Request) -> tuple[int, ...]:
    """What is said, decoded over pages."""
    engine.submit(request)
    said: tuple[int, ...] = ()
    while engine.busy:
        for _, completion in engine.step().finished:
            said = completion.tokens
    return said


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    f"speculation-{name}": (
        f"new tokens/s of one sequence with guesses, against without: {how}",
        partial(bench_speculation, name),
    )
    for name, how in (
        ("known", "all of them right"),
        ("lookup", "out of a prompt that repeats itself"),
        ("draft", "of the first 4 of 16 layers"),
    )
}
