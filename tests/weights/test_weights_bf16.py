"""BF16 layers of an opened model: rows through the kernel, gradients as torch does it."""

import pytest
import torch
from torch.nn import functional as F

from herd.kernels.library import LEVELS, Kernels
from herd.llama.config import LlamaConfig
from herd.weights import bf16
from herd.weights.bf16 import Bf16Linear
from herd.weights.build import load_any
from herd.weights.hf import save_model
from herd.weights.lora import LoraSettings, adapted, attach
from stored_models import make_model

CONFIG = LlamaConfig(96, 64, 2, 8, 4, 96, max_seq_len=512)


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", make_model(CONFIG), CONFIG, herd={})
    return tmp_path / "m"


def layer(inputs=96, outputs=40):
    made = Bf16Linear(inputs, outputs).bfloat16()
    torch.nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(0))
    return made


def rows(count, inputs=96):
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count)).bfloat16()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_few_rows_are_the_products_rounded_once(count):
    made, x = layer(), rows(count)
    exact = (x.double() @ made.weight.double().T).float()
    with torch.inference_mode():
        found = made(x)
        again = made(x[:1])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-4)
    assert torch.equal(found[:1], again)  # a row does not depend on its neighbours


@pytest.mark.parametrize(("level", "taken"), [("avx512", [1, 8]), ("amx", [1, 8, 9]), (None, [1, 8])])
def test_the_kernel_takes_few_rows_or_with_amx_all_and_none_with_gradients(monkeypatch, level, taken):
    asked = []
    found = level and Kernels(None, LEVELS.index(level), threaded=True)
    monkeypatch.setattr(bf16, "kernels", lambda: found)
    monkeypatch.setattr(bf16, "linear_bf16", lambda x, weight: asked.append(len(x)) or F.linear(x, weight))
    made = layer()
    with torch.inference_mode():
        for x in (rows(1), rows(8), rows(9), rows(1).float()):
            made.to(x.dtype)(x)
    assert asked == taken
    made.bfloat16()(rows(2)).sum().backward()
    assert asked == taken
    assert made.weight.grad is not None


def test_an_opened_model_has_them_and_adapters_attach(folder):
    model = load_any(folder, dtype=torch.bfloat16)
    assert sum(isinstance(module, Bf16Linear) for module in model.modules()) == 2 * 7 + 1
    assert not any(isinstance(module, Bf16Linear) for module in load_any(folder).modules())
    tokens = torch.arange(3)[None]
    with torch.inference_mode():
        found = model.logits(model(tokens))
        wide = load_any(folder)
        expected = wide.logits(wide(tokens))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.std()))
    attach(model, LoraSettings(rank=2))
    assert len(list(adapted(model))) == 2 * 7
