"""Decoding steps as graphs, on the CPU: which sizes, what fills them up, and that an engine's text stays the same.

A stand-in for a captured graph runs the step again over the tensors that were captured, as a replay does; attention is
computed plainly. What a CUDA device makes of it is in tests/gpu, the kernels themselves in tests/kernels.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from drafting import Cheap
from generate_models import telling_model
from hypothesis import given
from hypothesis import strategies as st

from herd.generate import graphs, paged_cache, passes
from herd.generate.engine import Engine
from herd.generate.graphs import Size, size_for
from herd.generate.protocol import Request, Sampling
from herd.generate.settings import SchedulerSettings
from herd.kernels import gpu
from herd.llama.config import LlamaConfig

SHAPE = LlamaConfig(vocab_size=64, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, max_seq_len=2048)


@given(st.integers(1, 300), st.integers(1, 8192))
def test_a_step_runs_in_the_next_larger_size_and_fills_little_of_it(rows, pages):
    size = size_for(rows, pages)
    assert size.rows >= rows
    assert size.pages >= pages
    assert size.rows - rows <= size.rows / 3
    assert size.pages <= max(32, 4 * pages)
    assert size_for(*size) == size
    assert size_for(rows, pages + 1) >= size <= size_for(rows + 1, pages)


def test_there_are_few_sizes():
    assert len({size_for(rows, pages) for rows in range(1, 257) for pages in range(1, 8193)}) == 16 * 5


def plainly(q_NHK, pages, tables_SP, sequence_N, positions_N):
    """`paged_attention` of a GPU, token by token."""
    out = []
    for q_HK, sequence, position in zip(q_NHK, sequence_N.tolist(), positions_N.tolist(), strict=True):
        used = tables_SP[sequence, : position // pages.keys.shape[2] + 1].long()
        keys, values = (
            x[used].float().transpose(1, 2).flatten(0, 1)[: position + 1] for x in (pages.keys, pages.values)
        )
        q_GRK = q_HK.float().view(keys.shape[1], -1, q_HK.shape[-1])
        scores = torch.einsum("grk,sgk->grs", q_GRK, keys) * q_HK.shape[-1] ** -0.5
        out.append(torch.einsum("grs,sgk->grk", scores.softmax(-1), values).flatten(0, 1))
    return torch.stack(out).to(q_NHK.dtype)


class Replayed:
    """As `Captured`: the tensors of the capture are written, and the step runs over them."""

    def __init__(self, step, inputs, pool=None):
        self._step, self._inputs = step, {name: tensor.clone() for name, tensor in inputs.items()}

    def __call__(self, **inputs):
        for name, tensor in self._inputs.items():
            assert inputs[name].shape == tensor.shape
            assert inputs[name].dtype == tensor.dtype
            tensor.copy_(inputs[name])
        return self._step(**self._inputs)


@pytest.fixture
def device(monkeypatch):
    """The CPU, taken for a device whose kernels read pages in place and whose steps can be captured."""
    kernels = SimpleNamespace(
        paged_attention=plainly,
        prompt_attention=lambda q, pages, table, positions: plainly(
            q, pages, table[None], torch.zeros_like(positions), positions
        ),
    )
    monkeypatch.setitem(sys.modules, "herd.kernels.gpu.attention", kernels)
    monkeypatch.setattr(gpu, "attention", kernels, raising=False)
    monkeypatch.setattr(paged_cache, "usable", lambda *_: False)  # the compiled library, which would do it all
    monkeypatch.setattr(paged_cache.gpu, "attends", lambda *_: True)
    monkeypatch.setattr(passes.gpu, "captures", lambda *_: True)
    monkeypatch.setattr(graphs, "Captured", Replayed)


def asked(count, max_tokens=30, seed=0):
    return [
        Request(
            tuple((n * 7 + i * 5 + seed) % 60 + 1 for i in range(3 + 11 * n)),
            Sampling(0.8, max_tokens=max_tokens + n, seed=n),
        )
        for n in range(count)
    ]


def run(engine, requests):
    handles = [engine.submit(request) for request in requests]
    done = {}
    while engine.busy:
        done |= dict(engine.step().finished)
    return [done[handle] for handle in handles]


def same(found, expected):
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_an_engine_says_the_same_with_its_steps_captured(device):
    model = telling_model(SHAPE)
    engine = Engine(model, cache_tokens=4096, scheduling=SchedulerSettings(max_running=8))
    found = run(engine, asked(5))
    captured = engine.continuous.passes.graphs
    assert captured.failure == ""
    assert Size(6, 32) in captured.sizes  # five sequences, filled up to six
    nobodys = engine.continuous._cache.nobodys
    keys = engine.continuous._cache.layers[0].keys
    assert len(keys) == nobodys + 1
    assert keys[nobodys].abs().sum() > 0  # where what fills up was written ...
    engine.continuous.scheduler.check()  # ... which is no page of the pool
    same(found, plain(model, asked(5)))


def plain(model, requests):
    """As torch alone does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paged_cache.gpu, "attends", lambda *_: False)
        return run(Engine(model, cache_tokens=4096, scheduling=SchedulerSettings(max_running=8)), requests)


def test_drafts_and_their_checks_are_the_same_with_captured_steps(device):
    model, small = telling_model(SHAPE), telling_model(SHAPE)
    with torch.no_grad():
        small.model.norm.weight.mul_(0.9)
    engine = Engine(model, cache_tokens=4096, drafter=Cheap(small))
    found = run(engine, asked(3))
    drafts = engine.continuous.speculation._drafts
    assert engine.drafting.failure == ""
    assert engine.drafting.accepted > 0
    assert drafts._passes.graphs.sizes
    same(found, plain(model, asked(3)))


def test_what_ends_soon_is_not_captured(device):
    engine = Engine(telling_model(SHAPE), cache_tokens=4096)
    run(engine, asked(3, max_tokens=4))
    assert engine.continuous.passes.graphs.sizes == []


def test_a_capture_that_fails_leaves_the_engine_as_it_was(device, monkeypatch, caplog):
    tried = []

    def fails(step, inputs, pool=None):
        tried.append(step)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "Captured", fails)
    model = telling_model(SHAPE)
    engine = Engine(model, cache_tokens=4096)
    same(run(engine, asked(4)), plain(model, asked(4)))
    assert len(tried) == 1
    assert "RuntimeError: operation not permitted" in engine.continuous.passes.graphs.failure
    assert "without CUDA graphs" in caplog.text


def test_weights_that_changed_are_captured_anew(device):
    model = telling_model(SHAPE)
    engine = Engine(model, cache_tokens=4096)
    run(engine, asked(2))
    assert engine.continuous.passes.graphs.sizes
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone().mul_(0.5)
    engine.forget()
    assert engine.continuous.passes.graphs.sizes == []
    same(run(engine, asked(2)), plain(model, asked(2)))


def test_a_cpu_captures_nothing():
    assert Engine(telling_model(SHAPE)).continuous.passes.graphs is None
