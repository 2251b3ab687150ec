"""The engine on another device, without having one: on "meta" every mix of devices and every read of a value raises."""

from __future__ import annotations

import pytest
import torch

from herd.errors import DeviceError
from herd.generate import rows
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
from herd.generate.sampling import inverse_cdf
from herd.generate.settings import SchedulerSettings
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model
from herd.weights.frozen import FrozenLinear
from herd.weights.lora import attach, matrices, put
from herd.weights.settings import LoraSettings

SHAPE = LlamaConfig(vocab_size=40, dim=16, n_layers=6, n_heads=4, n_kv_heads=2, ffn_dim=32, max_seq_len=64)


def model(kind="plain"):
    made = Llama(SHAPE)
    init_weights(made, 0, 0.1)
    if kind == "fp8":
        quantize_model(made)
    if kind == "adapter over int8":
        for name, layer in matrices(made, LoraSettings().targets):
            put(made, name, FrozenLinear.of(layer, "int8"))
        attach(made, LoraSettings(rank=2))
    return made.eval()


@pytest.mark.parametrize("kind", ["plain", "fp8", "adapter over int8"])
def test_the_whole_cycle_of_a_batch_stays_on_the_models_device(kind, monkeypatch):
    """Prompts that enter together, alone and later, rows that end early, a batch that shrinks: all but the draw."""
    drawn = []

    def sample(logits_BV, *how):
        assert logits_BV.device.type == "meta"
        drawn.append(len(logits_BV))
        rows = len(logits_BV)
        return torch.zeros(rows, dtype=torch.int64), torch.zeros(rows)  # what the engine takes to main memory

    monkeypatch.setattr(rows, "sample", sample)
    engine = Engine(model(kind).to("meta"), batch_size=4, scheduling=SchedulerSettings(4, token_budget=12))
    requests = [Request((1, 2, 3 + n % 2), Sampling(max_tokens=1 + n)) for n in range(6)]
    found = engine.generate(requests)
    assert [len(completion.tokens) for completion in found] == [1, 2, 3, 4, 5, 6]
    assert max(drawn) == 4
    assert drawn[-1] < 4  # nobody waited any more
    assert len(list(engine.stream(requests[3]))) == 4
    for request in (*requests, Request((1, 2, 3, 4) * 5, Sampling(max_tokens=2))):  # over pages, and one in two parts
        engine.submit(request)
    finished = []
    while engine.busy:
        finished += engine.step().finished
    assert sorted(len(completion.tokens) for _, completion in finished) == [1, 2, 2, 3, 4, 5, 6]


def test_a_column_is_drawn_on_the_logits_device():
    weights = torch.rand(3, 40).to("meta")
    assert inverse_cdf(weights, torch.rand(3, 1).to("meta")).shape == (3,)


def test_out_of_memory_says_how_to_need_less():
    engine = Engine(model(), batch_size=2**40, cache_tokens=2**60)
    requests = [Request((1,), Sampling(max_tokens=8))]

    def full(*args, **kwargs):
        torch.empty(2**50, dtype=torch.uint8)

    engine._model.forward = full
    for run in (lambda: engine.generate(requests), lambda: list(engine.stream(requests[0]))):
        with pytest.raises(DeviceError, match="out of memory") as caught:
            run()
        assert "batch_size" in caught.value.mend
