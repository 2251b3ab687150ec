"""Generated tokens per second: herd's engine against `generate` of transformers, same shape, prompts and lengths.

"decode" is 64 requests of 64 prompt tokens and 64 new ones, sampled at temperature 1; "prefill" is 64 requests of 512
prompt tokens and one new token, counted in prompt tokens. Runs of both alternate. The limit is the measured matrix
rate over the FLOPs of a token's forward pass, a third of forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.harness import Row, make_row, matrix_rate, seconds
from bench.peers import transformers_llama
from bench.train import SHAPE
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
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


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "generate": (
        "new tokens/s of 64 requests, and prompt tokens/s of their prefill",
        lambda: [
            bench_generate("generate-decode", 64, 64, counted=64),
            bench_generate("generate-prefill", 512, 1, counted=512),
        ],
    ),
}
