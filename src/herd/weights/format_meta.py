"""Meta's own layout: params.json, consolidated.NN.pth for each model-parallel rank, fp8_scales_N.pt, tokenizer.model.

    herd convert Llama-3.1-8B/original model --to hf
    herd convert model original --to meta --model-parallel 8

Reading maps the files; a tensor that is cut over ranks is joined when it is asked for. FP8 is per rank there: where
the ranks of a w2 have scales of their own for one output row, the row has no single scale, and the matrix is read as
BF16 (that adds 2^-9 at most to an error of 2^-4). Not here: int4, LoRA and vision checkpoints.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from herd.errors import SettingError
from herd.files import read_json, write_json
from herd.llama.config import VOCABULARY, LlamaConfig, RopeScaling
from herd.progress import Progress
from herd.weights import meta_parts as parts
from herd.weights.formats import WriteOptions
from herd.weights.herd_json import herd_json
from herd.weights.meta_params import from_params, to_params
from herd.weights.meta_read import MetaFiles
from herd.weights.pth import write_pth
from herd.weights.staging import Staging
from herd.weights.stored import FP8, StoredModel, is_scale, scale_name, travelling_files
from herd.weights.tensors import Entry, Meter
from herd.weights.widen import fp8_names, widened

_BOS, _BASE_STOPS, _INSTRUCT_STOPS = 128_000, (128_001,), (128_001, 128_008, 128_009)
_BOUND = 1200.0  # paper section 6.2; Meta's loader has it as a default, the files do not say it


class Meta:
    name = "meta"
    about = "Meta's folder (params.json, consolidated.NN.pth), BF16 or FP8"
    single_file = False
    keeps_fp8 = True

    def detect(self, path: Path) -> bool:
        return (path / "params.json").is_file() and any(path.glob("consolidated.*.pth"))

    def open(self, path: Path) -> StoredModel:
        params = read_json(path / "params.json")
        herd = herd_json(path)
        stated = _stated(herd.get("meta"))
        files = MetaFiles.open(path)
        files.check_count(params.get("dim") if isinstance(params, dict) else None)
        config = from_params(
            params,
            ffn_dim=files.size("layers.0.feed_forward.w1.weight", 0),
            vocab_size=files.size("tok_embeddings.weight", 0),
            tied=files.is_tied(),
            stated=stated,
            where=str(path / "params.json"),
        )
        heads, known = config.n_kv_heads, stated.get("n_kv_heads")
        repeats = heads // known if known and heads % known == 0 else files.kv_repeats(config)
        notes: list[str] = []
        if repeats > 1:
            notes.append(f"the {heads} key/value heads are {heads // repeats}, each stored {repeats} times")
            config = replace(config, n_kv_heads=heads // repeats)
        tensors = files.entries(config, notes)
        bos, stops = _ids(path, config, stated, notes)
        return StoredModel(
            path,
            config,
            tensors,
            bos=bos,
            stops=stops,
            activation_bound=stated.get("activation_bound", _BOUND) if files.is_fp8 else None,
            files=travelling_files(path),
            herd={key: value for key, value in herd.items() if key != "meta"},
            config_file="params.json",
            notes=tuple(notes),
        )

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        if options.dtype not in ("", "bf16"):
            raise SettingError("a meta folder holds BF16 (and FP8)", where="--dtype", mend="leave --dtype out")
        ranks, config = options.model_parallel, model.config
        parts.check_ranks(config, ranks)
        model = _only_metas_fp8(model, progress)
        if config.rope_scaling not in (None, RopeScaling()):
            progress.note(
                "params.json cannot say the RoPE factor of Llama 3.2; Meta's first code for it takes 8, not 32"
            )
        params = to_params(config, config.n_kv_heads * parts.kv_repeats(config, ranks), str(model.path))
        each = [_rank_entries(model, rank, ranks, options.dtype) for rank in range(ranks)]
        meter = Meter(sum(entry.n_bytes for weights, scales in each for entry in (*weights, *scales)), progress)
        tied = {"output.weight": "tok_embeddings.weight"} if config.tie_embeddings else {}
        for rank, (weights, scales) in enumerate(each):
            write_pth(out.path / f"consolidated.{rank:02d}.pth", weights, aliases=tied, staging=out, meter=meter)
            if scales:
                write_pth(out.path / f"fp8_scales_{rank}.pt", scales, staging=out, meter=meter)
        write_json(out.path / "params.json", params)
        stated: dict[str, Any] = {"max_seq_len": config.max_seq_len, "n_kv_heads": config.n_kv_heads}
        stated |= {"bos": model.bos, "stops": list(model.stops)}
        if model.is_fp8:
            stated["activation_bound"] = model.activation_bound
        write_json(out.path / "herd.json", {**model.herd, **model.findings(), "meta": stated})
        if model.tokenizer is not None:
            model.tokenizer.save(out.path)
        for name, path in model.files.items():
            shutil.copyfile(path, out.path / name)


def _only_metas_fp8(model: StoredModel, progress: Progress) -> StoredModel:
    """FP8 where Meta's code reads it: in the feed-forward of all layers but the first and the last."""
    last = model.config.n_layers - 1
    narrow = fp8_names(model)
    if model.is_static:
        progress.note(f"{len(narrow)} FP8 matrices become BF16: Meta's layout has no fixed scales of activations")
        return widened(model, narrow)
    others = [name for name in narrow if ".mlp." not in name or int(name.split(".")[2]) in (0, last)]
    if not others:
        return model
    progress.note(
        f"{len(others)} of {len(narrow)} FP8 matrices become BF16: Meta's code reads FP8 in the feed-forward "
        "of the layers between first and last only"
    )
    return widened(model, others)


def _stated(value: object) -> dict[str, Any]:
    """What the folder's herd.json adds to params.json; anything that is not as herd writes it is passed over."""
    kinds = {"max_seq_len": int, "n_kv_heads": int, "bos": int | None, "stops": list, "activation_bound": float | None}
    given = value if isinstance(value, dict) else {}
    kept = {key: given[key] for key, kind in kinds.items() if key in given and isinstance(given[key], kind)}
    counts = all(kept.get(key, 1) > 0 for key in ("max_seq_len", "n_kv_heads"))
    bound = kept.get("activation_bound") is None or 0 < kept["activation_bound"] < float("inf")
    return kept if counts and bound and all(type(stop) is int for stop in kept.get("stops", ())) else {}


def _rank_entries(model: StoredModel, rank: int, ranks: int, dtype: str) -> tuple[list[Entry], list[Entry]]:
    """What one rank's consolidated file and its file of scales hold, in the order of the model."""
    weights, scales = [], []
    for name, entry in model.tensors.items():
        if is_scale(name):
            continue
        part = parts.part_of(name)
        weights.append(_cut(entry, part.name, part, model.config, rank, ranks, torch.bfloat16 if dtype else None))
        if entry.dtype == FP8:
            flat = _flat(model.tensors[scale_name(name)])
            # w2 is cut along its input: every rank has all output rows, each with the row's one scale
            rows = part if part.dim == 0 else replace(part, dim=parts.REPLICATED)
            scales.append(_cut(flat, parts.scale_key(part.name, rank), rows, model.config, rank, ranks, None))
    return weights, scales


def _flat(scale: Entry) -> Entry:
    """Scales [out, 1] as Meta keeps them, [out] in fp32."""
    return Entry(scale.name, scale.shape[:1], torch.float32, lambda: scale.values().flatten(), scale.place)


def _cut(
    entry: Entry,
    name: str,
    part: parts.Part,
    config: LlamaConfig,
    rank: int,
    ranks: int,
    dtype: torch.dtype | None,
) -> Entry:
    shape = list(entry.shape)
    if part.dim != parts.REPLICATED:
        repeats = parts.kv_repeats(config, ranks) if part.per_kv_head else 1
        shape[part.dim] = shape[part.dim] * repeats // ranks
    kept = entry.dtype if entry.dtype == FP8 or dtype is None else dtype
    return Entry(name, tuple(shape), kept, lambda: parts.piece(entry.values(), part, config, rank, ranks))


def _ids(
    path: Path, config: LlamaConfig, stated: Mapping[str, Any], notes: list[str]
) -> tuple[int | None, tuple[int, ...]]:
    """Begin and stop ids: herd.json's, else the released vocabulary's, all stops unless the name is a base model's."""
    if "stops" in stated:
        return stated.get("bos"), tuple(stated["stops"])
    if config.vocab_size != VOCABULARY:
        return None, ()
    names = "/".join(path.resolve().parts[-3:]).lower()
    base = re.search(r"llama-?3(\.\d)?-\d+b", names) is not None and "instruct" not in names
    stops = _BASE_STOPS if base else _INSTRUCT_STOPS
    notes.append(f"Meta's files do not say the stop ids; by the folder's name they are {list(stops)}")
    return _BOS, stops
