"""Layers whose weights stay in Q8_0 blocks: the same values as ggml's reference, and no memory of their own."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from herd.errors import DeviceError
from herd.generate.engine import Engine
from herd.generate.protocol import Request, Sampling
from herd.kernels.reference import dequantize_q8_0
from herd.llama.config import LlamaConfig
from herd.weights import build
from herd.weights.build import build_model, fitting_dtype, load_any
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.hf import save_model
from herd.weights.q8_0 import Q8Linear
from herd.weights.registry import open_model
from stored_models import make_model

CONFIG = LlamaConfig(96, 64, 2, 8, 4, 96, max_seq_len=512)
MATRICES = 2 * 7 + 1  # of two layers, and the output matrix


def blocks(rows, columns, seed=0):
    """Any bytes, but scales that are finite numbers."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (rows, columns // 32, 34), dtype=np.uint8)
    found[..., :2] = rng.normal(0, 0.01, (rows, columns // 32, 1)).astype(np.float16).view(np.uint8)
    return torch.from_numpy(found.reshape(rows, -1))


@pytest.fixture
def file(tmp_path):
    save_model(tmp_path / "hf", make_model(CONFIG), CONFIG, herd={})
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    return tmp_path / "m.gguf"


def test_values_are_those_of_the_reference():
    raw = blocks(7, 96)
    wanted = gguf.dequantize(raw.numpy(), gguf.GGMLQuantizationType.Q8_0)
    assert torch.equal(dequantize_q8_0(raw), torch.from_numpy(wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_multiplies_by_its_values(dtype):
    layer = Q8Linear(96, 7)
    layer.weight = blocks(7, 96, seed=1)
    x = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(0)).to(dtype)
    wanted = x.double() @ dequantize_q8_0(layer.weight).double().T
    found = layer(x)
    assert found.dtype == dtype
    assert found.shape == (2, 3, 7)
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6 if dtype == torch.float32 else 8e-3, atol=1e-5)


def test_matrices_stay_in_blocks_and_answer_as_their_values_do(file):
    wide, narrow = load_any(file), load_any(file, dtype=torch.bfloat16)
    assert not any(isinstance(module, Q8Linear) for module in wide.modules())
    assert sum(isinstance(module, Q8Linear) for module in narrow.modules()) == MATRICES
    tokens = torch.arange(40)[None] % CONFIG.vocab_size
    with torch.inference_mode():
        expected, found = wide.logits(wide(tokens)), narrow.logits(narrow(tokens))
        narrow.float().model.embed_tokens.dtype = torch.float32
        exact = narrow.logits(narrow(tokens))  # fp32 activations over the same blocks
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.std()))
    torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-5)
    (completion,) = Engine(narrow).generate([Request(tuple(range(9)), Sampling(temperature=0.0, max_tokens=5))])
    (wanted,) = Engine(wide).generate([Request(tuple(range(9)), Sampling(temperature=0.0, max_tokens=5))])
    assert completion.tokens == wanted.tokens
    paged = Engine(load_any(file, dtype=torch.bfloat16))
    paged.submit(Request(tuple(range(9)), Sampling(temperature=0.0, max_tokens=5)))
    (ended,) = [found for _ in range(20) if paged.busy for _, found in paged.step().finished]
    assert len(ended.tokens) == 5


def test_a_tied_model_keeps_its_embedding_dense(tmp_path):
    config = replace(CONFIG, tie_embeddings=True)
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    model = load_any(tmp_path / "m.gguf", dtype=torch.bfloat16)
    assert model.output_weight.dtype == torch.bfloat16
    assert model.logits(model(torch.tensor([[1, 2]]))).shape == (1, 2, config.vocab_size)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells mapped memory by /proc")
def test_blocks_are_the_mapped_file(file):
    model = load_any(file, dtype=torch.bfloat16)
    at = model.model.layers[1].mlp.down_proj.weight.data_ptr()
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    ends = [[int(end, 16) for end in span[0].split("-")] for span in spans]
    assert any(begin <= at < end for begin, end in ends)


def test_a_quantised_file_computes_in_bfloat16_where_fp32_has_no_room(file, monkeypatch):
    stored = open_model(file)
    assert fitting_dtype(stored) == torch.float32
    monkeypatch.setattr(build, "free_memory", lambda device: 100_000)
    assert fitting_dtype(stored) == torch.bfloat16
    assert sum(isinstance(module, Q8Linear) for module in build_model(stored, dtype=torch.bfloat16).modules()) > 0
    with pytest.raises(DeviceError, match=r"MiB|GiB") as refusal:
        build_model(stored, dtype=torch.float32)
    assert "--dtype q8_0" in str(refusal.value)


def test_a_mapped_model_needs_no_memory(tmp_path, monkeypatch):
    save_model(tmp_path / "hf", make_model(CONFIG), CONFIG, herd={})
    monkeypatch.setattr(build, "free_memory", lambda device: 0)
    assert load_any(tmp_path / "hf", dtype=torch.bfloat16).logits(torch.zeros(64).bfloat16()).shape == (96,)
