"""The Hugging Face layout as a format: config.json and safetensors, FP8 folders too.

`hf.py` has the calls of daily use (`save_model`, `load_model`); this is the same layout for `herd convert`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from herd.errors import ArtifactError, FormatError, SettingError
from herd.files import read_json, write_json
from herd.llama.config import LlamaConfig
from herd.progress import Progress
from herd.text import Tokenizer
from herd.weights.config_json import from_hf, generation_config, to_hf
from herd.weights.formats import WriteOptions
from herd.weights.herd_json import herd_json
from herd.weights.hf_files import has_weights, hf_entries, notes_on
from herd.weights.hf_fp8 import check_fp8, kept_wide, with_scales
from herd.weights.quantization import HERD_KEY, Fp8Layout, described, quantization_config, read_layout
from herd.weights.staging import Staging
from herd.weights.stored import FP8, TIED, StoredModel, in_order, is_scale, travelling_files
from herd.weights.tensors import Entry, write_tensors

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


class HuggingFace:
    name = "hf"
    about = "a Hugging Face folder (config.json, safetensors or pytorch_model.bin), BF16 or FP8"
    single_file = False
    keeps_fp8 = True

    def detect(self, path: Path) -> bool:
        return (path / "config.json").is_file() and has_weights(path)

    def open(self, path: Path) -> StoredModel:
        content = read_config(path)
        config = from_hf(content, str(path / "config.json"))
        layout = read_layout(path, content)
        found = hf_entries(path)
        tensors = {name: entry for name, entry in found.items() if not _is_harmless(name, config, layout)}
        check_fp8(config, tensors, layout, path)
        tensors = with_scales(tensors, path)
        bos, stops = special_ids(path, content)
        return StoredModel(
            path,
            config,
            in_order(config, tensors),
            bos=bos,
            stops=stops,
            activation_bound=layout.bound if layout else None,
            files=travelling_files(path),
            herd=herd_json(path),
            notes=(*(layout.notes if layout else ()), *_tied(config, found), *notes_on(path)),
        )

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        if options.dtype not in ("", *DTYPES):
            raise SettingError(
                f"tensors of an hf folder cannot be {options.dtype!r}",
                where="--dtype",
                mend=f"choose among {', '.join(DTYPES)}; FP8 is what `herd quantize` makes",
            )
        if "tokenizer.json" not in model.files and "tokenizer.model" in model.files:
            Tokenizer.load(model.files["tokenizer.model"]).save(out.path)  # transformers and vLLM read no bare ranks
        entries = [_as(entry, DTYPES.get(options.dtype)) for entry in model.tensors.values()]
        write_tensors(out.path, entries, options.max_shard_bytes, staging=out, progress=progress)
        write_description(model, entries, out.path)
        if model.tokenizer is not None:
            model.tokenizer.save(out.path)
        for name, path in model.files.items():
            shutil.copyfile(path, out.path / name)


def write_description(model: StoredModel, entries: list[Entry], folder: Path) -> None:
    """config.json, generation_config.json and herd.json of a model whose tensors are `entries`."""
    kinds = {entry.dtype for entry in entries if entry.dtype != FP8 and not is_scale(entry.name)}
    dtype = torch.bfloat16 if torch.bfloat16 in kinds or not kinds else min(kinds, key=lambda d: d.itemsize)
    content = to_hf(model.config, str(dtype).removeprefix("torch."), bos=model.bos, eos=model.stops)
    herd = {**model.herd, **model.findings()}
    if fp8 := {entry.name for entry in entries if entry.dtype == FP8}:
        content["quantization_config"] = quantization_config(kept_wide(model.config, fp8), static=model.is_static)
        known = {key: value for key, value in _dict(herd.get(HERD_KEY)).items() if key != "note"}
        herd[HERD_KEY] = known | described(model.activation_bound, static=model.is_static)
    write_json(folder / "config.json", content)
    if "generation_config.json" not in model.files:
        instruct = len(model.stops) > 1
        write_json(
            folder / "generation_config.json", generation_config(bos=model.bos, eos=model.stops, instruct=instruct)
        )
    write_json(folder / "herd.json", herd)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as(entry: Entry, dtype: torch.dtype | None) -> Entry:
    keeps = dtype is None or entry.dtype == FP8 or is_scale(entry.name)
    return entry if keeps else Entry(entry.name, entry.shape, dtype or entry.dtype, entry.values, entry.place)


def read_config(folder: Path) -> Any:
    """The content of config.json; ArtifactError if there is none."""
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            "no model is here: config.json is missing",
            where=str(folder),
            mend="give a model folder in the Hugging Face layout, e.g. one that herd wrote",
        )
    return read_json(folder / "config.json")


def special_ids(folder: Path, content: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """Begin of text and stop ids; generation_config.json, which generation reads, wins over config.json."""
    stated = dict(content)
    if (folder / "generation_config.json").is_file():
        stated |= {k: v for k, v in _dict(read_json(folder / "generation_config.json")).items() if v is not None}
    eos, bos = stated.get("eos_token_id"), stated.get("bos_token_id")
    stops = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(token) is int for token in (*stops, 0 if bos is None else bos)):
        raise FormatError(
            f"eos_token_id {eos!r} or bos_token_id {bos!r} is no id, nor a list of them",
            where=str(folder),
            mend="mend config.json or generation_config.json; Llama 3.1 has 128000 and [128001, 128008, 128009]",
        )
    return bos, tuple(stops)


def _is_harmless(name: str, config: LlamaConfig, layout: Fp8Layout | None) -> bool:
    """Tensors that other writers leave in a folder and that say nothing new."""
    if layout is not None and layout.passes_over(name):
        return True
    return name.endswith("rotary_emb.inv_freq") or (config.tie_embeddings and name == TIED)


def _tied(config: LlamaConfig, found: Mapping[str, Entry]) -> tuple[str, ...]:
    passed = config.tie_embeddings and TIED in found
    return (f"{TIED} is there and passed over: config.json ties it to the embedding",) if passed else ()
