"""Packed documents give what the same documents give alone, and the start of a model depends on its seed alone."""

import pytest
import torch

from herd.llama.attention import Layout, attend, document_mask
from herd.llama.blocked import blocked_attention, plan_documents
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.llama.rope import document_starts, rotation

LENGTHS = [[5, 1, 150, 44], [200], [130, 70]]


@pytest.fixture(scope="module")
def model():
    model = Llama(LlamaConfig(61, 32, 2, 4, 2, 48))
    init_weights(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
    return model


@pytest.fixture(scope="module")
def packed():
    tokens = torch.randint(0, 61, (3, 200), generator=torch.Generator().manual_seed(5))
    ids = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in LENGTHS])
    return tokens, ids


def test_packed_documents_equal_the_same_documents_alone(model, packed):
    tokens, ids = packed
    with torch.no_grad():
        found = model(tokens, document_ids_BT=ids)
        for row, lengths in enumerate(LENGTHS):
            start = 0
            for length in lengths:
                alone = model(tokens[row : row + 1, start : start + length])
                torch.testing.assert_close(found[row, start : start + length], alone[0], rtol=1e-5, atol=1e-5)
                start += length


def test_a_document_does_not_feel_its_neighbours(model, packed):
    tokens, ids = packed
    changed = tokens.clone()
    changed[0, :6] = (changed[0, :6] + 1) % 61
    with torch.no_grad():
        before, after = (model(x, document_ids_BT=ids) for x in (tokens, changed))
    assert torch.equal(before[0, 6:], after[0, 6:])
    assert not torch.equal(before[0, :6], after[0, :6])


def test_gradients_stay_within_a_document(model, packed):
    tokens, ids = packed
    hidden = model(tokens, document_ids_BT=ids)
    hidden[1].sum().backward()  # one row alone
    grad = model.model.embed_tokens.weight.grad
    unseen = sorted(set(range(61)) - set(tokens[1].tolist()))
    assert (grad[unseen] == 0).all()
    model.zero_grad()


def test_the_masked_path_of_gpus_equals_the_blocked_path_of_cpus(model, packed):
    _, ids = packed
    starts = document_starts(ids)
    layer = model.model.layers[0].self_attn
    x = torch.randn(3, 200, 32, generator=torch.Generator().manual_seed(2))
    cos, sin = (part[..., None, :] for part in rotation(model.config, torch.arange(200) - starts))
    by_mask = layer(x, Layout(cos, sin, mask=document_mask(starts)))
    layout = model._layout(x, None, ids, None)
    assert layout.spans is not None
    torch.testing.assert_close(layer(x, layout), by_mask, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunks", [[range(150, 200), range(10, 47)], [range(1)], [range(64, 200)]])
def test_chunks_of_the_queries_find_what_all_of_them_find(packed, chunks):
    _, ids = packed
    starts = document_starts(ids)
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, 200, heads, 8, generator=draw, requires_grad=True) for heads in (4, 2, 2))
    places = [place for chunk in chunks for place in chunk]
    whole = blocked_attention(q, k, v, plan_documents(starts, q))[:, places]
    part = blocked_attention(q[:, places], k, v, plan_documents(starts, q, chunks))
    torch.testing.assert_close(part, whole)
    up = torch.randn(part.shape, generator=draw)
    for wanted, found in zip(*(torch.autograd.grad(out, (q, k, v), up) for out in (whole, part)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_attend_without_mask_is_causal():
    q, k, v = (torch.randn(1, 6, 2, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    nothing = torch.empty(0)
    causal = document_mask(torch.zeros(1, 6, dtype=torch.int64))
    torch.testing.assert_close(
        attend(q, k, v, Layout(nothing, nothing)), attend(q, k, v, Layout(nothing, nothing, mask=causal))
    )


def test_a_seed_decides_the_start_alone():
    config = LlamaConfig(61, 32, 2, 4, 2, 48)
    first, again, other = Llama(config), Llama(config), Llama(config)
    init_weights(first, 7)
    torch.rand(3)  # the global generator has no say
    init_weights(again, 7)
    init_weights(other, 8)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert tensor.dim() == 1 or not torch.equal(tensor, other.state_dict()[name])


def test_the_spread_of_the_start():
    config = LlamaConfig(512, 256, 8, 4, 2, 512)
    model = Llama(config)
    init_weights(model, 0)
    state = model.state_dict()
    assert state["model.layers.0.self_attn.q_proj.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["model.layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(0.005, rel=0.05)
    assert (state["model.norm.weight"] == 1).all()


def test_making_a_model_draws_no_random_numbers():
    before = torch.get_rng_state()
    Llama(LlamaConfig(61, 32, 2, 4, 2, 48))
    assert torch.equal(torch.get_rng_state(), before)
