"""Generated tokens per second: herd's engine against `generate` of transformers, same shape, prompts and lengths.

"decode" is 64 requests of 64 prompt tokens and 64 new ones, sampled at temperature 1; "prefill" is 64 requests of 512
prompt tokens and one new token, counted in prompt tokens. Runs of both alternate. The limit is the measured matrix
rate over the FLOPs of a token's forward pass, a third of forward and backward.

"sharing" is rejection sampling: 16 candidates of 64 tokens to a prompt of 512, through `Engine.submit`, with shared
pages and (in the peer's place) with every candidate on pages of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.harness import Row, make_row, matrix_rate, seconds
from bench.peers import transformers_llama
from bench.train import SHAPE
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
from herd.generate.settings import SchedulerSettings
from herd.llama.init import init_weights
from herd.llama.model import Llama

REQUESTS = 64


def bench_generate(row: str, prompt_tokens: int, new_tokens: int, counted: int, pairs: int = 5) -> Row:
    """One row: `counted` tokens of each request over the seconds of all, `pairs` alternating runs after one warm-up."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, SHAPE.vocab_size, (REQUESTS, prompt_tokens), generator=generator)
    model = Llama(SHAPE)
    init_weights(model, seed=0)
    engine = Engine(model.eval(), batch_size=REQUESTS)
    requests = [
        Request(tuple(prompt), Sampling(max_tokens=new_tokens, seed=seed))
        for seed, prompt in enumerate(prompts.tolist())
    ]
    peer = transformers_llama(SHAPE)
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
    options |= {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "attention_mask": torch.ones_like(prompts)}
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs + 1):
        rates[0].append(REQUESTS * counted / seconds(lambda: engine.generate(requests)))
        if peer is not None:
            rates[1].append(REQUESTS * counted / seconds(lambda: peer.eval().generate(prompts, **options)))
    limit = matrix_rate(torch.float32) / (SHAPE.flops_per_token(prompt_tokens + new_tokens) / 3)
    return make_row(row, "tokens/s", rates[0][1:], rates[1][1:], "transformers generate", limit)


def bench_sharing(candidates: int = 16, prompt_tokens: int = 512, new_tokens: int = 64, pairs: int = 5) -> Row:
    """New tokens/s of the candidates of one prompt; nothing is known of it beforehand in any run."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, SHAPE.vocab_size, (prompt_tokens,), generator=generator)
    model = Llama(SHAPE)
    init_weights(model, seed=0)
    request = Request(tuple(prompt.tolist()), Sampling(max_tokens=new_tokens))
    engines = [Engine(model.eval(), scheduling=SchedulerSettings(share=share)) for share in (True, False)]

    def draw(engine: Engine) -> None:
        engine.continuous.forget()
        for candidate in request.candidates(candidates):
            engine.submit(candidate)
        while engine.busy:
            engine.step()

    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs + 1):
        for engine, rate in zip(engines, rates, strict=True):
            rate.append(candidates * new_tokens / seconds(partial(draw, engine)))
    return make_row("generate-sharing", "tokens/s", rates[0][1:], rates[1][1:], "without sharing", None)


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "generate": (
        "new tokens/s of 64 requests, and prompt tokens/s of their prefill",
        lambda: [
            bench_generate("generate-decode", 64, 64, counted=64),
            bench_generate("generate-prefill", 512, 1, counted=512),
        ],
    ),
    "sharing": ("new tokens/s of 16 candidates of one prompt of 512 tokens", lambda: [bench_sharing()]),
}
