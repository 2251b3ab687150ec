"""131,072 positions: marked tokens are found at every depth, and what they take is told before."""

import numpy as np
import pytest
import torch

from herd.errors import InputError
from herd.generate import Request, Sampling
from herd.generate.engine import Engine
from herd.generate.settings import SchedulerSettings
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama

CONTEXT = 131_072
COLOURS, VALUES, FILLERS = 8, 4, 20
SIZE, FIRST = 32, 8  # of the only head; the first of the pairs that 131,072 positions turn by less than 0.005 radians
NEEDLES = COLOURS * VALUES  # ids [0, NEEDLES): needle of colour c and value v; then a question a colour, then fillers
VOCABULARY = NEEDLES + COLOURS + FILLERS
SHARP = 40.0  # score of a needle of the right colour; all else has 0, and exp(40) is 1e12 times 131,072


def needle(colour, value):
    return colour * VALUES + value


def finder():
    """One layer whose weights are made, not trained: a question attends to the needle of its colour and says it.

    A token's embedding has its colour as a key (needles), or as a query (questions), and its value (needles, and
    fillers by chance); attention brings the value of what was found to where the output matrix reads it.
    """
    config = LlamaConfig(VOCABULARY, SIZE, 1, 1, 1, 2, rope_theta=1e15, rope_scaling=None, max_seq_len=CONTEXT)
    key, query, value, found = 0, COLOURS, 2 * COLOURS, 2 * COLOURS + VALUES  # where in the residual stream
    model = Llama(config)
    init_weights(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_() if parameter.dim() == 2 else parameter.fill_(1.0)
        embedding, attention = model.model.embed_tokens.weight, model.model.layers[0].self_attn
        for c in range(COLOURS):
            for v in range(VALUES):
                embedding[needle(c, v), [key + c, value + v]] = 1.0
                model.lm_head.weight[needle(c, v), [query + c, found + v]] = 10.0
            embedding[NEEDLES + c, query + c] = 1.0
            attention.q_proj.weight[FIRST + c, query + c] = 1.0
            attention.k_proj.weight[FIRST + c, key + c] = 1.0
        for f in range(FILLERS):
            embedding[NEEDLES + COLOURS + f, value + f % VALUES] = 1.0
        for v in range(VALUES):
            attention.v_proj.weight[v, value + v] = 1.0
            attention.o_proj.weight[found + v, v] = 1.0
        # normed, a question has sqrt(SIZE) in its one place, a needle sqrt(SIZE / 2) in each of its two
        attention.q_proj.weight.mul_(SHARP * SIZE**0.5 / (SIZE**0.5 * (SIZE / 2) ** 0.5))
    return model.eval()


def haystack(depths, length):
    """Fillers with a needle of colour c at depths[c]; and each needle's value."""
    rng = np.random.default_rng(0)
    ids = rng.integers(NEEDLES + COLOURS, VOCABULARY, length)
    values = rng.integers(0, VALUES, COLOURS)
    for colour, depth in enumerate(depths):
        ids[depth] = needle(colour, values[colour])
    return tuple(ids.tolist()), values.tolist()


def answers(engine, text):
    """What the model says to each colour's question behind the text."""
    handles = [
        engine.submit(Request((*text, NEEDLES + colour), Sampling(temperature=0.0, max_tokens=1)))
        for colour in range(COLOURS)
    ]
    done = {}
    while engine.busy:
        done.update(engine.step().finished)
    return [done[handle].tokens[0] for handle in handles]


def test_needles_are_found_in_a_short_text():
    text, values = haystack([0, 1, 63, 64, 500, 1023, 1024, 2046], 2047)
    engine = Engine(finder(), cache_tokens=2**12, scheduling=SchedulerSettings(8, token_budget=300), invariant=None)
    assert answers(engine, text) == [needle(c, v) for c, v in enumerate(values)]
    nothing, _ = haystack([], 2047)
    assert answers(engine, nothing) != [needle(c, v) for c, v in enumerate(values)]


@pytest.mark.slow
@pytest.mark.parametrize("cache_dtype", [None, torch.float8_e4m3fn])
def test_needles_are_found_at_every_depth_of_the_whole_context(cache_dtype):
    length = CONTEXT - 2 if cache_dtype is None else CONTEXT // 4
    depths = [0, 1, 1_000, length // 4, length // 2, 3 * length // 4, length - 20, length - 1]
    text, values = haystack(depths, length)
    engine = Engine(
        finder().bfloat16(),
        cache_tokens=CONTEXT + 8 * 64,
        scheduling=SchedulerSettings(8, token_budget=2048),
        cache_dtype=cache_dtype,
    )
    needed = engine.bytes_of(Request((*text, NEEDLES), Sampling(max_tokens=1)))
    assert needed <= engine.cache_bytes
    assert answers(engine, text) == [needle(c, v) for c, v in enumerate(values)]


def test_what_does_not_fit_is_told_in_bytes_before_anything_is_done():
    engine = Engine(finder(), cache_tokens=1024)
    per_token = engine._model.config.cache_bytes_per_token(4)
    request = Request((0,) * 2000, Sampling(max_tokens=49))
    assert engine.bytes_of(request) == 2048 * per_token
    assert engine.cache_bytes == 1024 * per_token
    with pytest.raises(InputError, match=f"{2048 * per_token:,} bytes of {1024 * per_token:,}") as caught:
        engine.submit(request)
    assert "1024 tokens or fewer, or give the engine cache_tokens=2048" in caught.value.mend
    with pytest.raises(InputError, match=f"{CONTEXT - 1} tokens or fewer"):
        engine.bytes_of(Request((0,) * CONTEXT))
    half = Engine(finder(), cache_tokens=1024, cache_dtype=torch.float8_e4m3fn)
    assert half.cache_bytes == engine.cache_bytes * (1 + 4 / SIZE) / 4
