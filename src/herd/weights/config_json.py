"""config.json and generation_config.json between Hugging Face's keys and `LlamaConfig`.

Written with the keys that readers of 2024 know (`rope_theta`, `rope_scaling`, `torch_dtype`); read with those or with
the `rope_parameters` and `dtype` of transformers 5. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from herd.errors import ArtifactError, FormatError, SettingError
from herd.llama.config import LlamaConfig, RopeScaling
from herd.weights.stated_numbers import number, whole

# What transformers assumes when a config.json of a Llama leaves the key out.
_DEFAULT_EPS, _DEFAULT_THETA, _DEFAULT_LENGTH = 1e-6, 10_000.0, 2048
_SCALING_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# Variants of the network that the keys below can switch on and this network is not; what to do about each.
_ANOTHER = "point to a folder of a Llama 3 model"
NO_BIASES = "Llama 3 has no biases, and this network computes none; run this model with a program that has them"
_ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "model_type": (("llama",), _ANOTHER),
    "hidden_act": (("silu", "swish"), _ANOTHER),
    "attention_bias": ((False,), NO_BIASES),
    "mlp_bias": ((False,), NO_BIASES),
    "partial_rotary_factor": ((1, None), _ANOTHER),
}


def to_hf(config: LlamaConfig, dtype: str, *, bos: int | None = None, eos: Sequence[int] = ()) -> dict[str, Any]:
    """The content of config.json. A base model has one `eos`, an instruct model a list."""
    scaling = config.rope_scaling
    content: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling and {"rope_type": "llama3"} | {name: getattr(scaling, name) for name in _SCALING_KEYS},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
    }
    return content | _special_ids(bos, eos)


def generation_config(*, bos: int | None, eos: Sequence[int], instruct: bool) -> dict[str, Any]:
    """The content of generation_config.json; sampling defaults are those of the released instruct models."""
    content = _special_ids(bos, eos)
    return content | {"do_sample": True, "temperature": 0.6, "top_p": 0.9} if instruct else content


def _special_ids(bos: int | None, eos: Sequence[int]) -> dict[str, Any]:
    ids: dict[str, Any] = {} if bos is None else {"bos_token_id": bos}
    if eos:
        ids["eos_token_id"] = eos[0] if len(eos) == 1 else list(eos)
    return ids


def from_hf(content: object, where: str) -> LlamaConfig:
    """The `LlamaConfig` of a config.json; anything this network cannot be is refused by name."""
    if not isinstance(content, dict):
        raise FormatError("a config.json holds an object", where=where)
    _refuse_variants(content, where)
    theta, scaling = _rope(content, where)
    try:
        config = LlamaConfig(
            vocab_size=_integer(content, "vocab_size", where),
            dim=_integer(content, "hidden_size", where),
            n_layers=_integer(content, "num_hidden_layers", where),
            n_heads=_integer(content, "num_attention_heads", where),
            n_kv_heads=_integer(content, "num_key_value_heads", where, content.get("num_attention_heads")),
            ffn_dim=_integer(content, "intermediate_size", where),
            norm_eps=_number(content, "rms_norm_eps", where, _DEFAULT_EPS),
            rope_theta=theta,
            rope_scaling=scaling,
            max_seq_len=_integer(content, "max_position_embeddings", where, _DEFAULT_LENGTH),
            tie_embeddings=_flag(content, "tie_word_embeddings", where),
        )
    except SettingError as error:
        raise FormatError(f"config.json describes no possible network: {error.message}", where=where) from error
    if content.get("head_dim") not in (None, config.head_dim):
        raise ArtifactError(
            f"head_dim is {content['head_dim']!r}; this network has hidden_size / heads = {config.head_dim}",
            where=where,
            mend=_ANOTHER,
        )
    return config


def _refuse_variants(content: Mapping[str, Any], where: str) -> None:
    """ArtifactError for a network that is no Llama, or a Llama with parts that this one lacks."""
    for key, (allowed, mend) in _ONLY.items():
        if key in content and content[key] not in allowed:
            raise ArtifactError(
                f"{key} is {content[key]!r}; this network is a Llama with {key} {allowed[0]!r}", where=where, mend=mend
            )
    built = content.get("architectures")
    if "model_type" not in content and isinstance(built, list) and built and "Llama" not in str(built[0]):
        raise ArtifactError(f"the architecture is {built[0]!r}; this network is a Llama", where=where, mend=_ANOTHER)


def _rope(content: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """theta and scaling, from the old two keys or from `rope_parameters`."""
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise FormatError("the RoPE settings are no object of one kind of layer", where=where, mend=_ANOTHER)
    if rope.get("partial_rotary_factor") not in (1, None):
        raise ArtifactError("RoPE turns a part of each head only; this network turns all", where=where, mend=_ANOTHER)
    theta = _number(rope if "rope_theta" in rope else content, "rope_theta", where, _DEFAULT_THETA)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ArtifactError(
            f"RoPE scaling of type {kind!r}; this network knows 'llama3'",
            where=where,
            mend="use a program that knows it: without it every position is turned wrongly",
        )
    factor, low, high = (_number(rope, name, where) for name in _SCALING_KEYS[:3])
    try:
        return theta, RopeScaling(factor, low, high, _integer(rope, _SCALING_KEYS[3], where))
    except SettingError as error:
        raise FormatError(f"impossible RoPE scaling: {error.message}", where=where) from error


def _integer(content: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = content.get(key)
    return whole(default if value is None else value, key, where)


def _number(content: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = content.get(key)
    return number(default if value is None else value, key, where)


def _flag(content: Mapping[str, Any], key: str, where: str) -> bool:
    value = content.get(key)
    if not isinstance(value, bool | None):
        raise FormatError(f"{key} should be true or false, not {value!r}", where=where)
    return bool(value)
