"""params.json, Meta's description of a model's shape, to and from `LlamaConfig`. Imports no torch.

It says nothing of the context length, tied embeddings, stop ids or the numbers behind `use_scaled_rope`. The first
three stand in herd.json of the folders that herd writes; the last are those of Llama 3.1, and for the two text models
of Llama 3.2, known by their shape, a factor of 32. A model with others is refused, because Meta's code would turn its
positions wrongly and say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from herd.errors import ArtifactError, FormatError, InputError, SettingError
from herd.llama.config import LlamaConfig, RopeScaling, ffn_size
from herd.weights.stated_numbers import number, whole

# dim -> multiplier, multiple_of; the first two are Llama 3.2
_RELEASED = {2048: (1.5, 256), 3072: (1.0, 256), 4096: (1.3, 1024), 8192: (1.3, 4096), 16384: (1.2, 4096)}
# Width, layers, query heads, feed-forward of Llama 3.2 1B and 3B. Meta's own code uses factor 8 for them too, which is
# wrong past 80,000 tokens; their config.json says 32 (github.com/meta-llama/llama-models, issues 166 and 241).
_LLAMA_32 = {(2048, 16, 32, 8192), (3072, 28, 24, 8192)}
_CONTEXT, _SHORT_CONTEXT = 131_072, 8_192  # Llama 3.1, Llama 3


def to_params(config: LlamaConfig, n_kv_heads: int, where: str) -> dict[str, Any]:
    """The content of params.json; `n_kv_heads` counts the repeated ones too."""
    if config.rope_scaling not in (None, _scaling(config)):
        raise InputError(
            f"Meta's layout cannot say {config.rope_scaling}: its code knows the scaling of Llama 3.1 only",
            where=where,
            mend="convert to hf or gguf, which state the scaling",
        )
    multiplier, multiple_of = _ffn_rule(config.dim, config.ffn_dim)
    return {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": n_kv_heads,
        "vocab_size": config.vocab_size,
        "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_scaled_rope": config.rope_scaling is not None,
    }


def _scaling(config: LlamaConfig) -> RopeScaling:
    """What `use_scaled_rope` means for a model of this shape."""
    small = (config.dim, config.n_layers, config.n_heads, config.ffn_dim) in _LLAMA_32 and config.tie_embeddings
    return RopeScaling(factor=32.0) if small else RopeScaling()


def _ffn_rule(dim: int, ffn_dim: int) -> tuple[float, int]:
    """A multiplier and a multiple that give `ffn_dim` by Meta's rule: the released ones where they do."""
    released = _RELEASED.get(dim)
    if released and ffn_size(dim, *released) == ffn_dim:
        return released
    multiple_of = math.gcd(ffn_dim, 4096)
    multiplier = round((ffn_dim - multiple_of / 2) / int(8 * dim / 3), 6)
    if ffn_size(dim, multiplier, multiple_of) != ffn_dim:  # a gap too narrow for six digits
        multiplier, multiple_of = (ffn_dim + 0.5) / int(8 * dim / 3), 1
    assert ffn_size(dim, multiplier, multiple_of) == ffn_dim
    return multiplier, multiple_of


def from_params(
    params: object, *, ffn_dim: int, vocab_size: int, tied: bool, stated: Mapping[str, Any], where: str
) -> LlamaConfig:
    """The `LlamaConfig` of a params.json; `ffn_dim` and `vocab_size` are the tensors' own, `stated` is herd.json's."""
    if not isinstance(params, dict):
        raise FormatError("params.json holds an object", where=where)
    images = params.get("vision_chunk_size", -1) not in (-1, None)
    if images or params.get("quantization_args") or params.get("lora_args"):
        raise ArtifactError(
            "params.json describes a model with images, int4 weights or adapters",
            where=where,
            mend="give the text model of Llama 3 or 3.1 in BF16 or FP8",
        )
    heads = whole(params.get("n_heads"), "n_heads", where)
    scaled = params.get("use_scaled_rope", False)
    if not isinstance(scaled, bool):
        raise FormatError(f"use_scaled_rope should be true or false, not {scaled!r}", where=where)
    if not isinstance(params.get("vocab_size", -1), int) or params.get("vocab_size", -1) not in (-1, vocab_size):
        raise ArtifactError(
            f"params.json says vocab_size {params['vocab_size']}, the embedding has {vocab_size} rows", where=where
        )
    try:
        config = LlamaConfig(
            vocab_size=vocab_size,
            dim=whole(params.get("dim"), "dim", where),
            n_layers=whole(params.get("n_layers"), "n_layers", where),
            n_heads=heads,
            n_kv_heads=heads if params.get("n_kv_heads") is None else whole(params["n_kv_heads"], "n_kv_heads", where),
            ffn_dim=ffn_dim,
            norm_eps=number(params.get("norm_eps", 1e-5), "norm_eps", where),
            rope_theta=number(params.get("rope_theta", 500_000.0), "rope_theta", where),
            rope_scaling=None,
            max_seq_len=int(stated.get("max_seq_len") or (_CONTEXT if scaled else _SHORT_CONTEXT)),
            tie_embeddings=tied,
        )
    except SettingError as error:
        raise FormatError(f"params.json describes no possible network: {error.message}", where=where) from error
    return replace(config, rope_scaling=_scaling(config)) if scaled else config
