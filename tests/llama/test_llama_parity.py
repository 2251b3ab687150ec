"""Logits against transformers' LlamaForCausalLM, an independent implementation, on random tiny models in fp32."""

import pytest
import torch
from torch.nn import functional as F

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.loss import chunked_cross_entropy
from herd.llama.model import Llama

transformers = pytest.importorskip("transformers")


def twins(config, seed=0):
    """Our model and transformers' with the same weights, wide enough that logits are not all alike."""
    ours = Llama(config)
    init_weights(ours, seed)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in ours.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
    scaling = config.rope_scaling
    rope = {"rope_type": "default"} if scaling is None else {"rope_type": "llama3", **vars(scaling)}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=config.max_seq_len,
            tie_word_embeddings=config.tie_embeddings,
            rope_parameters=rope | {"rope_theta": config.rope_theta},
        )
    ).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if config.tie_embeddings else [])
    return ours, theirs


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kv_heads", [8, 4, 2, 1])
def test_logits_equal_for_every_head_grouping(kv_heads, tied):
    ours, theirs = twins(LlamaConfig(97, 64, 3, 8, kv_heads, 80, tie_embeddings=tied))
    tokens = torch.randint(0, 97, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative(ours.logits(ours(tokens)), theirs(tokens).logits) < 1e-5


@pytest.mark.parametrize("first", [0, 8_180, 100_000, 131_000])
def test_logits_equal_at_far_positions(first):
    ours, theirs = twins(LlamaConfig(97, 64, 2, 2, 1, 80))
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(first, first + 24)[None]
    with torch.no_grad():
        expected = theirs(tokens, position_ids=positions).logits
        assert relative(ours.logits(ours(tokens, positions_BT=positions)), expected) < 1e-5


def test_a_spread_of_positions_tells_scaling_from_none():
    """Rotary scores know distances only, so far positions must be far from one another to see the scaling."""
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(1))
    positions = (torch.arange(24) * 5_000)[None]
    scaled, theirs = twins(LlamaConfig(97, 64, 2, 2, 1, 80))
    plain, _ = twins(LlamaConfig(97, 64, 2, 2, 1, 80, rope_scaling=None))
    with torch.no_grad():
        expected = theirs(tokens, position_ids=positions).logits
        assert relative(scaled.logits(scaled(tokens, positions_BT=positions)), expected) < 1e-5
        assert relative(plain.logits(plain(tokens, positions_BT=positions)), expected) > 1e-3


def test_gradients_equal():
    ours, theirs = twins(LlamaConfig(97, 32, 2, 4, 2, 48))
    tokens, targets = torch.randint(0, 97, (2, 2, 20), generator=torch.Generator().manual_seed(1))
    chunked_cross_entropy(ours(tokens).flatten(0, 1), ours.output_weight, targets.flatten(), chunk=7).backward()
    F.cross_entropy(theirs(tokens).logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert relative(parameter.grad, expected[name].grad) < 1e-5, name


def test_bf16_stays_close_to_fp32():
    ours, _ = twins(LlamaConfig(97, 64, 2, 4, 2, 80))
    tokens = torch.randint(0, 97, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = ours.logits(ours(tokens))
        assert relative(ours.bfloat16().logits(ours(tokens)), expected) < 0.05  # 8 bits of mantissa
