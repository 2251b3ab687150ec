"""The models that peers run on: the same shape with their own code, or None where they are not installed."""

from __future__ import annotations

from typing import Any

from herd.llama.config import LlamaConfig


def transformers_llama(shape: LlamaConfig) -> Any:
    """`LlamaForCausalLM` of transformers with torch's attention, freshly initialised; None without transformers."""
    try:
        import transformers
    except ImportError:
        return None
    transformers.logging.set_verbosity_error()
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.dim,
        intermediate_size=shape.ffn_dim,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=shape.tie_embeddings,
        attn_implementation="sdpa",
    )
    return transformers.LlamaForCausalLM(config)
