"""The shape of a Llama in GGUF's words: metadata keys, tensor names, and the RoPE factors.

GGUF keeps Meta's row order of q and k (neighbours turn), so those matrices are permuted on the way in and out. The
3.1 frequency scaling is no metadata but a tensor, `rope_freqs.weight`, by which llama.cpp divides the frequencies;
without it a model breaks beyond 8K. Our own keys `herd.rope_scaling.*` say the four numbers behind it; for files of
others they are found again among those of the released models, and a tensor that fits none is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from herd.errors import ArtifactError, FormatError, SettingError
from herd.llama.config import LlamaConfig, RopeScaling
from herd.llama.rope import inverse_frequencies
from herd.weights.stated_numbers import number, whole

ROPE = "rope_freqs.weight"
_OWN = "herd.rope_scaling."
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def names(n_layers: int) -> dict[str, str]:
    """GGUF name -> Hugging Face name of every tensor of a model, in the order of a file."""
    table = {"token_embd.weight": _OUTER["token_embd.weight"]}
    for layer in range(n_layers):
        table |= {f"blk.{layer}.{ours}.weight": f"model.layers.{layer}.{hf}.weight" for ours, hf in _INNER.items()}
    return table | _OUTER


def to_metadata(config: LlamaConfig) -> dict[str, int | float]:
    """The `llama.*` keys of a model, and our own of its RoPE scaling."""
    said: dict[str, int | float] = {
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_seq_len,
        "llama.embedding_length": config.dim,
        "llama.block_count": config.n_layers,
        "llama.feed_forward_length": config.ffn_dim,
        "llama.attention.head_count": config.n_heads,
        "llama.attention.head_count_kv": config.n_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_theta),
    }
    scaling = config.rope_scaling
    return said | ({} if scaling is None else {_OWN + f.name: getattr(scaling, f.name) for f in fields(scaling)})


def from_metadata(
    said: Mapping[str, Any], vocab_size: int, tied: bool, factors: Tensor | None, where: str
) -> LlamaConfig:
    """The `LlamaConfig` of a file; what this network cannot be is refused by name."""
    architecture = said.get("general.architecture")
    if architecture != "llama":
        raise ArtifactError(f"the model is a {architecture!r}; this network is a Llama", where=where)
    _refuse_variants(said, where)
    dim, n_heads = _whole(said, "embedding_length", where), _whole(said, "attention.head_count", where)
    theta = _exact(_number(said, "rope.freq_base", where, 10_000.0))  # llama.cpp's default
    try:
        config = LlamaConfig(
            vocab_size=vocab_size,
            dim=dim,
            n_layers=_whole(said, "block_count", where),
            n_heads=n_heads,
            n_kv_heads=_whole(said, "attention.head_count_kv", where, n_heads),
            ffn_dim=_whole(said, "feed_forward_length", where),
            norm_eps=_exact(_number(said, "attention.layer_norm_rms_epsilon", where)),
            rope_theta=theta,
            rope_scaling=None,
            max_seq_len=_whole(said, "context_length", where),
            tie_embeddings=tied,
        )
        for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
            if _whole(said, key, where, config.head_dim) != config.head_dim:
                raise ArtifactError(
                    f"llama.{key} is {said['llama.' + key]}; this network has embedding / heads = {config.head_dim}",
                    where=where,
                )
        return replace(config, rope_scaling=_find_scaling(said, config, factors, where))
    except SettingError as error:
        raise FormatError(f"the metadata describes no possible network: {error.message}", where=where) from error


def _refuse_variants(said: Mapping[str, Any], where: str) -> None:
    if said.get("llama.expert_count", 0):
        raise ArtifactError("the model is a mixture of experts; this network is a dense Llama", where=where)
    kind, factor = said.get("llama.rope.scaling.type", "none"), said.get("llama.rope.scaling.factor", 1.0)
    linear = said.get("llama.rope.scale_linear", 1.0)
    if (kind != "none" and factor not in (0, 1)) or linear not in (0, 1):
        raise ArtifactError(f"RoPE scaling of type {kind!r}; this network knows the 3.1 factors", where=where)


def rope_factors(scaling: RopeScaling, head_dim: int, theta: float) -> Tensor:
    """What each frequency is divided by, fp32 [head_dim / 2]; 1 for short waves, `factor` for long ones."""
    plain = inverse_frequencies(head_dim, theta, None)
    context, low, high = scaling.original_max_position_embeddings, scaling.low_freq_factor, scaling.high_freq_factor
    factors = []
    for frequency in plain.tolist():
        wavelength = 2 * math.pi / frequency
        keep = (context / wavelength - low) / (high - low)
        factors.append(1 / ((1 - min(max(keep, 0.0), 1.0)) / scaling.factor + min(max(keep, 0.0), 1.0)))
    return torch.tensor(factors, dtype=torch.float32)


def _find_scaling(
    said: Mapping[str, Any], config: LlamaConfig, factors: Tensor | None, where: str
) -> RopeScaling | None:
    """The scaling that gives these factors; ours is in the metadata, others' is searched for."""
    if factors is None:
        return None
    if factors.shape != (config.head_dim // 2,):
        raise FormatError(f"{ROPE} is {list(factors.shape)}, not [{config.head_dim // 2}]", where=where)
    for candidate in _candidates(said, float(factors.max()), where):
        if torch.allclose(rope_factors(candidate, config.head_dim, config.rope_theta), factors, rtol=1e-5, atol=0):
            return candidate
    raise ArtifactError(
        f"{ROPE} holds factors from {float(factors.min()):g} to {float(factors.max()):g} that fit no Llama 3.1 scaling",
        where=where,
        mend="convert the original model instead of this file",
    )


def _candidates(said: Mapping[str, Any], factor: float, where: str) -> list[RopeScaling]:
    """Our own keys if they are there, else the released models' frequency factors with any context."""
    if _OWN + "factor" in said:
        own = [number(said.get(_OWN + f.name), _OWN + f.name, where) for f in fields(RopeScaling)]
        return [RopeScaling(_exact(own[0]), _exact(own[1]), _exact(own[2]), int(own[3]))]
    contexts = [8192, *(2**power for power in range(4, 21))]
    return [RopeScaling(_exact(factor), 1.0, 4.0, context) for context in contexts] if factor > 0 else []


def _exact(value: float) -> float:
    """The decimal that someone wrote, back from the fp32 that GGUF keeps: 1e-05, not 9.999999747378752e-06."""
    return float(f"{value:.7g}")


def _whole(said: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    return whole(said.get(f"llama.{key}", default), f"llama.{key}", where)


def _number(said: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    return number(said.get(f"llama.{key}", default), f"llama.{key}", where)
