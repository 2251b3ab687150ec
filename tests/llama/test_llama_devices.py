"""Which attention is taken off the CPU, asked on torch's "meta" device, where tensors have shapes and no values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from herd.llama import attention, model
from herd.llama.cache import KVCache
from herd.llama.config import LlamaConfig
from herd.llama.loss import CHUNK, GPU_CHUNK, chunked_cross_entropy, token_logprobs
from herd.llama.model import Llama

SHAPE = LlamaConfig(vocab_size=64, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=64)


@pytest.fixture
def calls(monkeypatch):
    """How torch's attention was called. The CPU's own paths raise."""
    seen = []
    plain = F.scaled_dot_product_attention

    def asked(q, k, v, **options):
        seen.append((q.shape[1], k.shape[1], options["attn_mask"] is not None, options["is_causal"]))
        return plain(q, k, v, **options)

    def never(*args, **kwargs):
        raise AssertionError("a path for the CPU was taken")

    monkeypatch.setattr(F, "scaled_dot_product_attention", asked)
    monkeypatch.setattr(attention, "blocked_attention", never)
    monkeypatch.setattr(model, "plan_causal", never)
    monkeypatch.setattr(model, "plan_documents", never)
    monkeypatch.setattr(attention, "_SLOW_BFLOAT16", True)
    return seen


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def llama(request):
    with torch.device("meta"):
        return Llama(SHAPE).to(request.param)


def tokens(rows, length):
    return torch.zeros(rows, length, dtype=torch.int64, device="meta")


def test_plain_rows_take_the_causal_kernel_with_shared_key_heads(llama, calls):
    assert llama(tokens(2, 16)).device.type == "meta"
    assert calls == [(4, 2, False, True)] * 2


def test_documents_take_a_mask_and_as_many_key_heads_as_query_heads(llama, calls):
    assert llama(tokens(2, 16), document_ids_BT=tokens(2, 16)).device.type == "meta"
    assert calls == [(4, 4, True, False)] * 2


def test_a_cache_is_filled_continued_and_decoded_from(llama, calls):
    cache = KVCache(SHAPE, 2, 64, llama.output_weight.dtype, "meta")
    llama(tokens(2, 8), cache=cache)
    assert calls == [(4, 2, False, True)] * 2
    with pytest.raises(RuntimeError, match="meta"):  # lengths off the CPU are not read
        int(cache.lengths_B.max())
    llama(tokens(2, 4), cache=cache)
    assert calls[2:] == [(4, 4, True, False)] * 2
    llama(tokens(2, 1), cache=cache)
    assert len(calls) == 4  # one token a row: products of its own
    assert cache.longest == 13
    assert {each.device.type for each in (*cache.keys, *cache.values)} == {"meta"}


@pytest.mark.parametrize("kind", ["cross entropy", "log-probabilities"])
@pytest.mark.parametrize(("device", "chunk"), [("cpu", CHUNK), ("meta", GPU_CHUNK)])
def test_larger_chunks_of_logits_are_taken_off_the_cpu(kind, device, chunk, monkeypatch):
    rows = []
    plain = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda x, **options: rows.append(len(x)) or plain(x, **options))
    hidden, weight = torch.zeros(2500, 8, device=device), torch.zeros(30, 8, device=device)
    targets = torch.zeros(2500, dtype=torch.int64, device=device)
    (chunked_cross_entropy if kind == "cross entropy" else token_logprobs)(hidden, weight, targets)
    assert rows[0] == chunk
    assert sum(rows) == 2500
