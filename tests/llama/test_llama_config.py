"""Sizes and costs against the published ones (facts table 1.3, 11.3), and impossible shapes."""

import dataclasses

import pytest
import torch

from herd.errors import SettingError
from herd.llama.config import LlamaConfig, RopeScaling, ffn_size, llama31_8b, llama31_70b, llama31_405b
from herd.llama.model import Llama

PUBLISHED = {  # parameters, tensors, bytes of bf16 cache a token
    llama31_8b: (8_030_261_248, 291, 131_072),
    llama31_70b: (70_553_706_496, 723, 327_680),
    llama31_405b: (405_853_388_800, 1_137, 516_096),
}


@pytest.mark.parametrize("preset", PUBLISHED, ids=lambda preset: preset.__name__)
def test_released_models_have_the_published_counts(preset):
    config = preset()
    with torch.device("meta"):
        state = Llama(config).state_dict()
    counted = sum(tensor.numel() for tensor in state.values()), len(state), config.cache_bytes_per_token()
    assert counted == PUBLISHED[preset]
    assert (config.parameters(), config.tensors()) == PUBLISHED[preset][:2]


def test_tied_counts_agree_with_the_network():
    config = LlamaConfig(100, 16, 2, 4, 2, 24, tie_embeddings=True)
    state = Llama(config).state_dict()
    assert config.parameters() == sum(tensor.numel() for tensor in state.values())
    assert config.tensors() == len(state)
    assert "lm_head.weight" not in state


@pytest.mark.parametrize(
    ("dim", "multiplier", "multiple", "expected"),
    [(4096, 1.3, 1024, 14_336), (8192, 1.3, 4096, 28_672), (16_384, 1.2, 4096, 53_248)],
)
def test_feed_forward_rule(dim, multiplier, multiple, expected):
    assert ffn_size(dim, multiplier, multiple) == expected


@pytest.mark.parametrize(
    ("preset", "matrices", "square"),
    [
        (llama31_8b, 4.5030e10, 1.2885e10),
        (llama31_70b, 4.1702e11, 6.4425e10),
        (llama31_405b, 2.4225e12, 2.0294e11),
    ],
)
def test_flops_per_token(preset, matrices, square):
    assert preset().flops_per_token(8192) == pytest.approx(matrices + square / 2, rel=1e-4)


def test_tying_the_embeddings_does_not_change_the_work():
    untied = LlamaConfig(100, 16, 2, 4, 2, 24)
    tied = dataclasses.replace(untied, tie_embeddings=True)
    assert tied.flops_per_token(64) == untied.flops_per_token(64)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads"),
        ({"dim": 18}, "dim"),
        ({"dim": 12}, "n_heads"),
        ({"n_layers": 0}, "n_layers"),
        ({"ffn_dim": -8}, "ffn_dim"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"norm_eps": 0.0}, "norm_eps"),
    ],
)
def test_impossible_shapes_are_refused_by_name(change, where):
    with pytest.raises(SettingError) as caught:
        LlamaConfig(
            **({"vocab_size": 9, "dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 8} | change)
        )
    assert caught.value.where == where


def test_impossible_scaling_is_refused():
    with pytest.raises(SettingError):
        RopeScaling(low_freq_factor=4.0, high_freq_factor=4.0)
