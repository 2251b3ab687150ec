"""Prefill and cached decoding equal the full pass; rows of different lengths; rows kept and repeated."""

import pytest
import torch

from herd.errors import InputError
from herd.llama.cache import KVCache
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama

LENGTHS = torch.tensor([9, 4, 1])


@pytest.fixture(scope="module")
def config():
    return LlamaConfig(61, 32, 2, 4, 2, 48)


@pytest.fixture(scope="module")
def model(config):
    model = Llama(config)
    init_weights(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 61, (3, 16), generator=torch.Generator().manual_seed(5))


def prefill(model, config, tokens):
    """Right-padded rows of LENGTHS tokens in a cache; the padding is arbitrary ids."""
    cache = KVCache(config, batch=3, max_len=16)
    padded = torch.where(torch.arange(9) < LENGTHS[:, None], tokens[:, :9], 60)
    hidden = model(padded, cache=cache)
    cache.truncate(LENGTHS)
    return cache, hidden


def test_decoding_rows_of_different_lengths_equals_the_full_pass(model, config, tokens):
    full = model(tokens)
    cache, hidden = prefill(model, config, tokens)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(hidden[row, :length], full[row, :length], rtol=1e-5, atol=1e-5)
    for step in range(7):
        at = LENGTHS + step
        found = model(tokens[torch.arange(3), at][:, None], cache=cache)
        torch.testing.assert_close(found[:, 0], full[torch.arange(3), at], rtol=1e-5, atol=1e-5)
    assert cache.lengths_B.tolist() == [16, 11, 8]


@pytest.mark.parametrize("chunk", [1, 3, 5, 16])
def test_prefill_in_chunks_equals_the_full_pass(model, config, tokens, chunk):
    cache = KVCache(config, batch=3, max_len=16)
    found = torch.cat([model(part, cache=cache) for part in tokens.split(chunk, dim=1)], dim=1)
    torch.testing.assert_close(found, model(tokens), rtol=1e-5, atol=1e-5)


def test_given_positions_write_where_they_say(model, config, tokens):
    cache = KVCache(config, batch=3, max_len=16)
    positions = torch.arange(9).expand(3, -1)
    model(tokens[:, :9], positions_BT=positions, cache=cache)
    found = model(tokens[:, 9:10], positions_BT=torch.full((3, 1), 9), cache=cache)
    torch.testing.assert_close(found[:, 0], model(tokens)[:, 9], rtol=1e-5, atol=1e-5)


def test_selected_and_repeated_rows_go_on_as_before(model, config, tokens):
    full = model(tokens)
    cache, _ = prefill(model, config, tokens)
    cache.select(torch.tensor([2, 0]))
    cache.repeat(2)
    rows = torch.tensor([2, 2, 0, 0])
    assert cache.batch == 4
    assert cache.lengths_B.tolist() == [1, 1, 9, 9]
    at = LENGTHS[rows]
    found = model(tokens[rows, at][:, None], cache=cache)
    torch.testing.assert_close(found[:, 0], full[rows, at], rtol=1e-5, atol=1e-5)


def test_repeated_rows_do_not_share_memory(model, config, tokens):
    cache, _ = prefill(model, config, tokens)
    cache.repeat(2)
    before = cache.keys[0][1].clone()
    cache.keys[0][0].fill_(7.0)
    assert torch.equal(cache.keys[0][1], before)


def test_rows_can_be_selected_by_a_mask(model, config, tokens):
    cache, _ = prefill(model, config, tokens)
    cache.select(torch.tensor([False, True, True]))
    assert cache.lengths_B.tolist() == [4, 1]
    assert cache.longest == 4


def test_truncation_takes_drafts_back(model, config, tokens):
    cache, _ = prefill(model, config, tokens)
    model(torch.full((3, 4), 60), cache=cache)  # four rejected drafts
    cache.truncate(LENGTHS)
    found = model(tokens[torch.arange(3), LENGTHS][:, None], cache=cache)
    torch.testing.assert_close(found[:, 0], model(tokens)[torch.arange(3), LENGTHS], rtol=1e-5, atol=1e-5)


def test_misuse_is_refused(model, config, tokens):
    with pytest.raises(InputError, match="does not fit a cache of 8"):
        model(tokens, cache=KVCache(config, batch=3, max_len=8))
    with pytest.raises(InputError, match="3 rows of tokens for a cache of 2"):
        model(tokens, cache=KVCache(config, batch=2, max_len=16))
    with pytest.raises(InputError, match="one document a row"):
        model(tokens, document_ids_BT=torch.zeros_like(tokens), cache=KVCache(config, batch=3, max_len=16))
