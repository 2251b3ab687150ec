"""Weights on large pages: the same numbers in another place."""

import mmap

import torch

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model
from herd.quantize.settings import POLICIES
from herd.weights import resident

SHAPE = LlamaConfig(vocab_size=1024, dim=128, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=512, tie_embeddings=True)
TOKENS = torch.arange(40)[None]


def drawn() -> Llama:
    model = Llama(SHAPE)
    init_weights(model, seed=1)
    return model.bfloat16().eval()


def test_outputs_stay_the_same_to_the_bit():
    model = drawn()
    quantize_model(model, POLICIES["all"])
    with torch.inference_mode():
        before = model.logits(model(TOKENS))
    bits = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert resident.make_resident(model) > 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), bits[name].view(torch.uint8)), name
    with torch.inference_mode():
        assert torch.equal(model.logits(model(TOKENS)), before)


def test_large_weights_begin_at_a_page_and_in_one_piece_of_memory():
    model = drawn()
    moved = resident.make_resident(model)
    large = {t.data_ptr(): t.nbytes for t in model.parameters() if t.nbytes >= resident._LEAST}
    assert all(start % mmap.PAGESIZE == 0 for start in large)
    assert min(large) % resident.LARGE == 0
    assert max(start + size for start, size in large.items()) - min(large) <= moved
    assert model.output_weight is model.model.embed_tokens.weight  # tied as before, and moved once
    assert moved < 1.1 * sum(large.values())


def test_memory_outlives_the_names_that_it_was_made_under():
    model = drawn()
    want = model.model.layers[0].mlp.gate_proj.weight.detach().clone()
    resident.make_resident(model)
    kept = model.model.layers[0].mlp.gate_proj.weight.detach()
    del model
    torch.ones(2**20)
    assert torch.equal(kept, want)


def test_no_copy_where_memory_is_short_or_the_system_has_no_such_pages(monkeypatch):
    model = drawn()
    size = sum(resident._room(tensor) for tensor in resident._weights(model))
    assert not resident.fits(model)  # too small to be worth it
    monkeypatch.setattr(resident, "_WORTH", size)
    monkeypatch.setattr(resident, "free_memory", lambda device: 2 * size - 1)
    assert not resident.fits(model)
    monkeypatch.setattr(resident, "free_memory", lambda device: 2 * size)
    assert resident.fits(model) == hasattr(mmap, "MADV_HUGEPAGE")
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert not resident.fits(model)
    assert resident.make_resident(model) == size  # on plain pages all the same


def test_a_model_of_small_tensors_stays_where_it_is():
    model = Llama(LlamaConfig(vocab_size=64, dim=32, n_layers=1, n_heads=2, n_kv_heads=1, ffn_dim=64))
    init_weights(model, seed=0)
    assert resident.make_resident(model) == 0
