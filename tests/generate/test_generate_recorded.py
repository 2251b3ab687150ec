"""Passes of few tokens in one call: the bits of a pass layer by layer, and only where that can be."""

import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from generate_models import telling_model

from herd.generate import Request, Sampling, recorded
from herd.generate.engine import Engine
from herd.generate.invariant import with_rows
from herd.generate.jobs import Chunk
from herd.generate.paged import with_pages
from herd.generate.paged_cache import PagedCache
from herd.generate.pages import PAGE, Table
from herd.generate.prompt_lookup import PromptLookup
from herd.generate.recorded import LEAST_ROWS, Recorded
from herd.generate.work import Work
from herd.kernels.fused import swiglu
from herd.kernels.linear import linear_bf16, linear_f32, linear_fp8
from herd.kernels.program import Program
from herd.llama.config import LlamaConfig
from herd.quantize.fp8 import quantize_model
from herd.quantize.settings import POLICIES
from herd.weights.fp8 import Fp8Linear
from herd.weights.lora import LoraSettings, attach
from herd.weights.q8_0 import Q8Linear

VOCABULARY = 131
SHAPE = LlamaConfig(VOCABULARY, 64, 3, 4, 2, 96, max_seq_len=300, tie_embeddings=True)
E4M3 = torch.float8_e4m3fn
ROWS = 70  # of a program's buffers
KINDS = ("float32", "bfloat16", "untied", "paper", "all", "q8_0")
STARTS = (0, 15, 16, 17, 63, 64, 65, 200)  # around the borders of pages and blocks


def make_model(kind):
    model = telling_model(dataclasses.replace(SHAPE, tie_embeddings=kind != "untied"))
    if kind in POLICIES:
        quantize_model(model, POLICIES[kind])
    if kind == "q8_0":
        with_blocks(model)
    return model if kind in ("float32", "untied") else model.bfloat16()


def with_blocks(model):
    """Every second layer's down projection in blocks of Q8_0."""
    numbers = np.random.default_rng(5)
    for block in model.model.layers[::2]:
        made = Q8Linear(96, 64)
        codes = numbers.integers(0, 256, (64, 3, 34), dtype=np.uint8)
        codes[:, :, :2] = np.array([0.003], dtype=np.float16).view(np.uint8)
        made.weight = torch.from_numpy(codes.reshape(64, -1))
        block.mlp.down_proj = made


def filled_cache(model, cache_dtype):
    """Pages that hold something, the same in every one that is made."""
    dtype = model.model.norm.weight.dtype
    cache = PagedCache(model.config, 80, PAGE, dtype, "cpu", cache_dtype)
    generator = torch.Generator().manual_seed(2)
    for tensor in (tensor for layer in cache.layers for tensor in layer if tensor is not None):
        drawn = torch.rand(tensor.shape, generator=generator)
        tensor.copy_(drawn if tensor.dim() == 3 else (drawn - 0.5).to(tensor.dtype))
    return cache


def chunks_of(n_tokens):
    """Single tokens at all sorts of places, each second pair with its beginning in common, and one of drafts."""
    drafts = 3 if n_tokens >= 5 else 0
    chunks, common, free = [], list(range(13)), iter(range(13, 80))
    for number in range(n_tokens - drafts):
        start = STARTS[(number * 3 + n_tokens) % len(STARTS)]
        shared = common[: start // PAGE] if number % 4 < 2 else common[1 : 1 + start // PAGE]
        chunks.append(Chunk(number, start, start + 1, Table([*shared, next(free)], start + 1)))
    if drafts:
        chunks.append(Chunk(99, 31, 31 + drafts, Table([5, 6, next(free)], 31 + drafts)))
    return chunks


@torch.inference_mode()
def passes(model, cache, sizes):
    """Normed hidden states of some passes, one after the other."""
    paged, found = with_pages(model, cache), []
    for n_tokens in sizes:
        cache.work = Work.of(chunks_of(n_tokens), cache)
        tokens_1N = torch.arange(n_tokens)[None] * 7 % VOCABULARY
        found.append(paged(tokens_1N, positions_BT=cache.work.positions_1N))
    return found


def told(run):
    """`Recorded.run` that notes whether it answered."""
    answers = []

    def noted(self, *given):
        found = run(self, *given)
        answers.append(found is not None)
        return found

    return noted, answers


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache_dtype", [None, E4M3])
def test_a_pass_in_one_call_has_the_bits_of_one_layer_by_layer(kind, cache_dtype, threads, monkeypatch):
    model, sizes = with_rows(make_model(kind)), (1, 2, 5, 8, 32, 1, LEAST_ROWS)
    first, cache = filled_cache(model, cache_dtype), filled_cache(model, cache_dtype)
    noted, answers = told(Recorded.run)
    monkeypatch.setattr(Recorded, "run", noted)
    threads(2)
    found = passes(model, first, sizes)
    threads(1)
    assert answers == [True] * len(sizes)
    monkeypatch.setattr(Recorded, "run", lambda *_: None)
    for one, other in zip(found, passes(model, cache, sizes), strict=True):
        assert torch.equal(one, other)
        assert bool(one.isfinite().all())
    for layer, other in zip(first.layers, cache.layers, strict=True):
        for one, two in zip(layer, other, strict=True):
            assert one is two is None or torch.equal(one.view(torch.uint8), two.view(torch.uint8))


def answers_of(model, **settings):
    """What an engine says to some requests that come and go, drafts among it."""
    how = Sampling(max_tokens=20, top_logprobs=2)
    prompts = [tuple((i * j * 5 + j) % VOCABULARY for j in range(3 + 9 * i)) for i in range(1, 8)]
    prompts.append(tuple(range(20)) * 4)
    requests = [Request(prompt, dataclasses.replace(how, seed=i)) for i, prompt in enumerate(prompts)]
    return Engine(model, drafter=PromptLookup(), **settings).generate(requests)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", ["bfloat16", "paper"])
def test_an_engine_says_the_same_either_way(kind, monkeypatch):
    model = make_model(kind)
    noted, answers = told(Recorded.run)
    monkeypatch.setattr(Recorded, "run", noted)
    found = answers_of(model)
    assert answers.count(True) >= 19
    monkeypatch.setattr(Recorded, "run", lambda *_: None)
    assert answers_of(model) == found


def with_adapter(model):
    attach(model, LoraSettings())


def with_fixed_scale(model):
    layer = Fp8Linear(64, 96, static=True)
    layer.weight, layer.weight_scale, layer.input_scale = torch.zeros(96, 64).to(E4M3), torch.ones(96, 1), torch.ones(1)
    model.model.layers[1].mlp.up_proj = layer


def with_a_layer_of_another_kind(model):
    class Doubled(Fp8Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model.model.layers[1].mlp.up_proj = Doubled.of(model.model.layers[1].mlp.up_proj)


def with_a_hook(model):
    quantize_model(model, POLICIES["all"])
    model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: None)


def left_alone(model):
    """Products of float32 are torch's unless asked otherwise."""


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "change", [with_adapter, with_fixed_scale, with_a_layer_of_another_kind, with_a_hook, left_alone]
)
def test_what_a_program_cannot_do_is_left_to_the_layers(change, monkeypatch):
    model = telling_model(SHAPE)
    change(model)
    noted, answers = told(Recorded.run)
    monkeypatch.setattr(Recorded, "run", noted)
    assert len(passes(model, filled_cache(model, None), (1, 5))) == 2
    assert answers == [False, False]


@pytest.mark.usefixtures("compiled")
def test_room_grows_for_prompts_and_the_longest_go_layer_by_layer(monkeypatch):
    monkeypatch.setattr(recorded, "LEAST_ROWS", 4)
    monkeypatch.setattr(recorded, "MOST_ROWS", 64)
    model, sizes = with_rows(make_model("bfloat16")), (4, 5, 40, 3, 65, 4)
    noted, answers = told(Recorded.run)
    monkeypatch.setattr(Recorded, "run", noted)
    found = passes(model, filled_cache(model, None), sizes)
    assert answers == [True, True, True, True, False, True]
    monkeypatch.setattr(Recorded, "run", lambda *_: None)
    for one, other in zip(found, passes(model, filled_cache(model, None), sizes), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("compiled")
@torch.inference_mode()
def test_weights_that_change_in_place_move_or_are_others_are_seen(monkeypatch):
    model = make_model("all")
    cache = filled_cache(model, None)
    paged, cache.work = with_pages(model, cache), Work.of(chunks_of(5), cache)
    noted, answers = told(Recorded.run)
    run = lambda: paged(torch.arange(5)[None], positions_BT=cache.work.positions_1N)  # noqa: E731
    layer, norm = model.model.layers[1].mlp.up_proj, model.model.layers[2].input_layernorm

    def changed_in_place():
        layer.weight_scale.mul_(1.5)

    def moved():
        layer.weight_scale.data = layer.weight_scale * 1.5

    def replaced():
        layer.weight_scale = layer.weight_scale * 1.5

    def another_norm():
        norm.weight = torch.nn.Parameter(norm.weight * 1.5)

    seen = []
    for change in (lambda: None, changed_in_place, moved, replaced, another_norm):
        change()
        gc.collect()
        with monkeypatch.context() as patched:
            patched.setattr(Recorded, "run", lambda *_: None)
            expected = run()
        with monkeypatch.context() as patched:
            patched.setattr(Recorded, "run", noted)
            seen.append(run())
        assert torch.equal(seen[-1], expected)
    assert answers == [True] * 5
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(seen))


def buffers(*widths, dtype=torch.float32):
    return [torch.ones(ROWS, width, dtype=dtype) for width in widths]


def drawn_weight(n, k, dtype, seed):
    weight_NK = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) / 4
    return (weight_NK.to(dtype), torch.rand(n, 1) + 0.5) if dtype == E4M3 else (weight_NK.to(dtype), None)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, E4M3])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_products_done_together_have_the_bits_of_one_after_the_other(dtype, n_threads, threads):
    """Widths that are no whole pieces; what is read before and after a pair that SwiGLU mixes; one that stays alone."""
    threads(n_threads)
    k, of_x = 600, torch.float32 if dtype == torch.float32 else torch.bfloat16
    linear = {torch.float32: linear_f32, torch.bfloat16: linear_bf16, E4M3: linear_fp8}[dtype]
    widths = (37, 5, 133, 200, 261, 261)
    weights = [drawn_weight(width, k, dtype, seed) for seed, width in enumerate(widths)]
    x, other = (torch.randn(ROWS, k, generator=torch.Generator().manual_seed(seed)).to(of_x) for seed in (8, 9))
    outs, program = buffers(*widths, dtype=of_x), Program(ROWS)
    for (weight, scale), out, given in zip(weights, outs, (x, x, x, x, other, other), strict=True):
        program.product(given, weight, scale, out=out)
    program.swiglu(outs[4], outs[5])
    planned = Work.of(chunks_of(2), filled_cache(telling_model(SHAPE), None)).planned
    for rows in (1, 3, 33, ROWS):
        for out in outs:
            out.fill_(7)
        program.run(rows, torch.ones(rows, 8), torch.ones(rows, 8), planned)
        alone = [
            linear((x if i < 4 else other)[:rows], *(part for part in weight if part is not None))
            for i, weight in enumerate(weights)
        ]
        alone[4] = swiglu(alone[4], alone[5])
        for out, expected in zip(outs, alone, strict=True):
            assert torch.equal(out[:rows], expected)
            assert bool((out[rows:] == 7).all())


@pytest.mark.usefixtures("compiled")
def test_a_program_keeps_what_it_points_to():
    program, (x, out) = Program(ROWS), buffers(8, 4)
    weight = torch.ones(4, 8)
    program.product(x, weight, out=out)
    alive = weakref.ref(weight)
    del weight
    gc.collect()
    assert alive() is not None


@pytest.mark.usefixtures("compiled")
def test_sizes_that_do_not_fit_are_refused():
    program, (x, out, wide) = Program(ROWS), buffers(8, 4, 9)
    narrow = torch.ones(ROWS, 8, dtype=torch.bfloat16)
    for wrong in (
        lambda: program.product(wide, torch.ones(4, 8), out=out),
        lambda: program.product(x, torch.ones(5, 8), out=out),
        lambda: program.product(x[:3], torch.ones(4, 8), out=out),
        lambda: program.product(narrow, torch.ones(4, 8), out=out),
        lambda: program.product(x, torch.ones(8, 4).T, out=out),
        lambda: program.product(x, torch.ones(4, 8).to(E4M3), torch.ones(3, 1), out=out),
        lambda: program.product(x, torch.ones(4, 8).to(E4M3), out=out),
        lambda: program.norm(x, wide, torch.ones(8), 1e-5, out=x),
        lambda: program.norm(x, None, torch.ones(9), 1e-5, out=x),
        lambda: program.swiglu(x, wide),
    ):
        with pytest.raises(ValueError, match=r"fit|belong|buffers|lie|scale|weight"):
            wrong()
    cache = filled_cache(telling_model(SHAPE), None)
    (q, k) = buffers(64, 32)
    program.rotate(q, k, k.clone(), cache.layers[0])
    with pytest.raises(ValueError, match="other layers"):
        program.attend(q, PagedCache(SHAPE, 9, PAGE, torch.float32, "cpu").layers[0], out=q.clone())
    work, angles = Work.of(chunks_of(2), cache), torch.ones(2, 8)
    for rows, cos in ((0, angles), (ROWS + 1, angles), (3, angles), (2, angles[:1]), (2, angles.bfloat16())):
        with pytest.raises(ValueError, match=r"rows|angles"):
            program.run(rows, cos, cos, work.planned)
