"""Model folders in Hugging Face's layout: config.json, safetensors, generation_config.json, tokenizer, herd.json.

    save_model(folder, model, config, tokenizer=tokenizer, herd={"made_by": ...})
    model = load_model(folder)          # fp32 on the CPU; an FP8 folder gives FP8 layers

A folder appears whole or not at all. Loading builds the network without memory, checks every name and shape from the
files' headers, then assigns tensor after tensor from the memory map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from herd.files import atomic_folder, write_json
from herd.llama.config import VOCABULARY, LlamaConfig
from herd.llama.model import Llama
from herd.weights.build import build_model
from herd.weights.config_json import from_hf, generation_config, to_hf
from herd.weights.format_hf import HuggingFace, read_config
from herd.weights.formats import GIB as GIB
from herd.weights.stored import FP8, TIED, check, is_scale
from herd.weights.stored import SavesFiles as SavesFiles
from herd.weights.tensors import Entry, write_tensors

# Ids of the released vocabulary, for a folder written without a tokenizer: begin, end of text, eom, eot.
_RELEASED_BOS, _RELEASED_STOPS = 128_000, (128_001, 128_008, 128_009)


def save_model(
    folder: str | Path,
    model_or_state: nn.Module | Mapping[str, Tensor],
    config: LlamaConfig,
    *,
    tokenizer: SavesFiles | None = None,
    dtype: torch.dtype = torch.bfloat16,
    herd: Mapping[str, Any],
    instruct: bool = False,
    max_shard_bytes: int = 5 * GIB,
    quantization_config: Mapping[str, Any] | None = None,
) -> int:
    """Write a model folder that transformers loads; returns the bytes of its tensors.

    `model_or_state` has Hugging Face's names. Tensors are written as `dtype`, except FP8 ones and their scales, which
    stay as they are. `instruct` adds the sampling defaults and the three stop ids. `herd` becomes herd.json.
    """
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else dict(model_or_state)
    if config.tie_embeddings:
        state.pop(TIED, None)
    return write_model(
        folder,
        [_entry(name, tensor, dtype, str(folder)) for name, tensor in state.items()],
        config,
        tokenizer=tokenizer,
        dtype=dtype,
        herd=herd,
        instruct=instruct,
        max_shard_bytes=max_shard_bytes,
        quantization_config=quantization_config,
    )


def write_model(
    folder: str | Path,
    entries: Sequence[Entry],
    config: LlamaConfig,
    *,
    tokenizer: SavesFiles | None = None,
    dtype: torch.dtype = torch.bfloat16,
    herd: Mapping[str, Any],
    instruct: bool = False,
    max_shard_bytes: int = 5 * GIB,
    quantization_config: Mapping[str, Any] | None = None,
) -> int:
    """The same of tensors that are read when their turn comes, each written as its own dtype; most have `dtype`."""
    _check_state(entries, config, folder, quantised=quantization_config is not None)
    bos, stops = _special_ids(tokenizer, config)
    eos = stops if instruct else stops[:1]
    content = to_hf(config, str(dtype).removeprefix("torch."), bos=bos, eos=eos)
    if quantization_config is not None:
        content["quantization_config"] = dict(quantization_config)
    with atomic_folder(Path(folder)) as aside:
        total = write_tensors(aside, entries, max_shard_bytes)
        write_json(aside / "config.json", content)
        write_json(aside / "generation_config.json", generation_config(bos=bos, eos=eos, instruct=instruct))
        if tokenizer is not None:
            tokenizer.save(aside)
        write_json(aside / "herd.json", dict(herd))
    return total


def _entry(name: str, tensor: Tensor, dtype: torch.dtype, place: str) -> Entry:
    keeps = tensor.dtype == FP8 or is_scale(name)
    return Entry(name, tuple(tensor.shape), tensor.dtype if keeps else dtype, lambda: tensor, place)


def _special_ids(tokenizer: SavesFiles | None, config: LlamaConfig) -> tuple[int | None, tuple[int, ...]]:
    """Begin of text, and the stop ids with end of text first; a foreign vocabulary without tokenizer has none."""
    if tokenizer is not None:
        return tokenizer.bos, tuple(tokenizer.stop_ids)
    return (_RELEASED_BOS, _RELEASED_STOPS) if config.vocab_size == VOCABULARY else (None, ())


def _check_state(entries: Sequence[Entry], config: LlamaConfig, folder: str | Path, *, quantised: bool) -> None:
    """Never write a folder that could not be read again. An FP8 state is its writer's own responsibility."""
    if not quantised:
        check(config, {entry.name: entry for entry in entries}, str(folder))


def load_config(folder: str | Path) -> LlamaConfig:
    """The shape of the model in `folder`, from its config.json."""
    return from_hf(read_config(Path(folder)), str(Path(folder) / "config.json"))


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Llama:
    """The model in `folder`, ready for inference (eval mode), parameters as `dtype` on `device`.

    Where dtype and device are the file's own, parameters are the file's memory map: nothing is read before it is used.
    Missing, unexpected and mis-shaped tensors are refused together, by name and file.
    """
    stored = HuggingFace().open(Path(folder))
    check(stored.config, stored.tensors, str(folder))
    return build_model(stored, dtype=dtype, device=device)
