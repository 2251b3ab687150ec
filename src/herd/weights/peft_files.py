"""What is in an adapter folder of the peft library, read without a network: `read_adapter(folder) -> StoredAdapter`.

Read: LoRA on the seven matrices of every layer, with patterns of rank and alpha, rank-stabilised scales, and the older
`adapter_model.bin` (unpickled as weights only). Refused by name: whatever would change the network in another way and
be lost without a word (DoRA, biases, starts that change the base, adapters of embeddings or of the output matrix, whole
modules but a reward's score), and settings that are not known here. What is adapted is read off the tensors, not off
`target_modules`, whose spellings differ between writers.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from herd.errors import ArtifactError, FormatError
from herd.files import read_json

CONFIG, TENSORS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX, SCORE = "base_model.model.", "score.weight"
OTHER_MODEL = "load it onto the model it was trained on: base_model_name_or_path in adapter_config.json names it"
_NAME = re.compile(r"(model\.layers\.\d+\.\w+\.(\w+))\.lora_([AB])\.weight")
_MERGE_THERE = "merge it with the program that made it (peft: merge_and_unload), and adopt the merged model"
# Settings that say what the tensors say themselves, or only matter in training.
_KNOWN = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "lora_dropout"),
    *("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "target_modules"),
    *("megatron_config", "megatron_core", "peft_type", "peft_version", "r", "rank_pattern", "revision", "task_type"),
    *("corda_config", "eva_config", "init_lora_weights", "loftq_config", "lora_ga_config", "qalora_group_size"),
    *("ensure_weight_tying", "runtime_config", "use_rslora", "velora_config"),
    *("bias",),  # looked at apart: its "off" is a word
}
# Starts that leave the base as it was. Of the others (pissa, olora, loftq, corda, lora_ga) the base is changed too, and
# the adapter is only right over the changed one.
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Update:
    """What an adapter adds to one matrix: scale * B A. `a` [rank, in], `b` [out, rank]."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter folder: the base it names, its updates by matrix name (`model.layers.0.mlp.up_proj`)."""

    folder: Path
    base: str
    updates: Mapping[str, Update]
    dropout: float
    score: Tensor | None  # of a reward model, [1, D]


def read_adapter(folder: Path) -> StoredAdapter:
    """Raises FormatError for a damaged folder, ArtifactError for none or one of a kind that is not read."""
    folder = Path(folder)
    config, tensors = _config(folder), _tensors(folder)
    updates = {
        name: Update(a, b, _scale(name, a.shape[0], config, folder)) for name, (a, b) in _pairs(tensors, folder).items()
    }
    dropout = config.get("lora_dropout") or 0.0
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise FormatError(f"lora_dropout should be a share in [0, 1), not {dropout!r}", where=str(folder / CONFIG))
    base = config.get("base_model_name_or_path")
    named = base if isinstance(base, str) else ""
    return StoredAdapter(folder, named, updates, float(dropout), tensors.get(PREFIX + SCORE))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ArtifactError(
            f"no adapter is here: {CONFIG} is missing", where=str(folder), mend="give a folder that peft or herd wrote"
        )
    config = read_json(path)
    if not isinstance(config, dict) or str(config.get("peft_type")).upper() != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise ArtifactError(
            f"an adapter of type {kind!r}; of peft's kinds LORA is read", where=str(path), mend=_MERGE_THERE
        )
    for key, value in config.items():
        if key not in _KNOWN and value not in (False, None, {}, []):
            what = f"{key} is {value!r}: not W + scale * B A, or not known here"
            raise ArtifactError(what, where=str(path), mend=_MERGE_THERE)
    if config.get("bias") not in ("none", None):
        raise ArtifactError(
            f"bias is {config['bias']!r}: biases were trained, and Llama has none", where=str(path), mend=_MERGE_THERE
        )
    start = config.get("init_lora_weights")
    if start not in _HARMLESS_STARTS:
        raise ArtifactError(
            f"init_lora_weights is {start!r}: such a start changes the base too, and this adapter belongs to that one",
            where=str(path),
            mend="save it again with peft's path_initial_model_for_weight_conversion, or merge it where it was made",
        )
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / TENSORS
    try:
        if path.exists():
            return dict(safetensors.torch.load_file(path))
        if (path := folder / PICKLED).exists():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
                raise FormatError("not names and tensors", where=str(path))
            return {str(name): tensor for name, tensor in loaded.items()}
    except (SafetensorError, OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise FormatError(f"not a whole file of tensors: {str(error)[:200]}", where=str(path)) from error
    raise ArtifactError(f"neither {TENSORS} nor {PICKLED} is here", where=str(folder), mend="copy the folder again")


def _pairs(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Matrix name -> (A, B), in float32. Every tensor must be one of a pair, or the score."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        found = _NAME.fullmatch(short)
        if found:
            halves.setdefault(found[1], {})[found[3]] = tensor.float()
        elif short != SCORE:
            raise ArtifactError(
                f"a tensor that is no low-rank update of a layer's matrix: {name}",
                where=str(folder),
                mend=f"embeddings, output matrix, norms and biases are not adapted here: {_MERGE_THERE}",
            )
    for name, half in halves.items():
        if len(half) != 2 or any(part.ndim != 2 for part in half.values()) or len(half["A"]) != half["B"].shape[1]:
            raise FormatError(f"A and B of {name} do not fit each other", where=str(folder), mend="copy it again")
        if not all(bool(torch.isfinite(part).all()) for part in half.values()):
            raise FormatError(f"{name} is adapted by NaN or infinity", where=str(folder), mend="train it again")
    if not halves:
        raise FormatError("the file holds no adapter", where=str(folder), mend="copy the folder again")
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _scale(name: str, rank: int, config: Mapping[str, Any], folder: Path) -> float:
    where = str(folder / CONFIG)
    stated = _pattern(config, "rank_pattern", name, config.get("r"), where)
    alpha = _pattern(config, "alpha_pattern", name, config.get("lora_alpha"), where)
    if stated != rank:
        raise FormatError(f"{name} has rank {rank}, the config says {stated!r}", where=where)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise FormatError(f"lora_alpha should be a number, not {alpha!r}", where=where)
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(config: Mapping[str, Any], key: str, name: str, default: Any, where: str) -> Any:
    """The first entry that is the name or the end of it, after a dot; peft reads the keys as regular expressions."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise FormatError(f"{key} should be an object, not {patterns!r}", where=where)
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", name):
                return value
        except re.error as error:
            raise FormatError(f"{key} has {pattern!r}, no regular expression: {error}", where=where) from error
    return default
