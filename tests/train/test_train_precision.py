"""What "auto" computes in: the format that the processor multiplies faster."""

import pytest
import torch

from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.train.optimiser import Optimiser
from herd.train.precision import compute_dtype
from herd.train.settings import TrainSettings

CPU = torch.device("cpu")
PROCESSORS = {
    "tiles": ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
    "Zen 4": ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
    "Intel without tiles": ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
    "old": ({"avx2": True, "cpu_name": "AMD Ryzen"}, torch.float32),
    "arm": ({}, torch.float32),
}


@pytest.mark.parametrize(("able", "expected"), PROCESSORS.values(), ids=PROCESSORS)
def test_auto_follows_the_processor(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    settings = TrainSettings(steps=1, batch_tokens=8, seq_len=8, dtype="auto")
    assert compute_dtype(settings, CPU) == expected
    model = Llama(LlamaConfig(vocab_size=32, dim=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=32))
    assert next(Optimiser(model, settings).compute.parameters()).dtype == expected
    assert next(model.parameters()).dtype == torch.float32


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert compute_dtype(TrainSettings(steps=1, batch_tokens=8, seq_len=8, dtype="auto"), CPU) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_format_is_taken_whatever_the_processor(name, monkeypatch):
    for able, _ in PROCESSORS.values():
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert compute_dtype(TrainSettings(steps=1, batch_tokens=8, seq_len=8, dtype=name), CPU) == getattr(torch, name)
