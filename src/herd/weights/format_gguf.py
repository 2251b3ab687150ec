"""GGUF as a format: what llama.cpp and its kin read. BF16, F16, F32 and Q8_0 out; every kind the library knows in.

    herd convert runs/nano/flagship flagship.gguf --to gguf --dtype q8_0

Matrices get the dtype asked for (default BF16), vectors are fp32 as llama.cpp wants them, so that a BF16 model comes
back bit for bit. Q8_0 goes by blocks of 32 values; a matrix whose rows are no multiple becomes F16. Writing, and
reading of quantised kinds, needs the extra `gguf`. Not here: files cut in parts on output (they are read).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from herd.errors import ArtifactError, FormatError, SettingError
from herd.kernels.reference import dequantize_q8_0
from herd.progress import Progress
from herd.weights import gguf_tokenizer
from herd.weights.formats import WriteOptions
from herd.weights.gguf_header import BF16, F16, F32, MAGIC, Q8_0, Header, Stored, kind_name, read_header
from herd.weights.gguf_library import library
from herd.weights.gguf_metadata import ROPE, from_metadata, names
from herd.weights.gguf_tokenizer import GgufTokenizer
from herd.weights.gguf_writer import write_file
from herd.weights.herd_json import herd_json
from herd.weights.mapped import mapped
from herd.weights.rotary import to_halves
from herd.weights.staging import Staging
from herd.weights.stored import StoredModel
from herd.weights.tensors import Entry, Packed, refuse_escape
from herd.weights.tokenizer_folder import tokenizer_folder

KINDS = {"bf16": BF16, "f16": F16, "f32": F32, "q8_0": Q8_0}
_DTYPES = {BF16: torch.bfloat16, F16: torch.float16, F32: torch.float32}
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf$")
_STOPS = "herd.stop_ids"  # GGUF has one end token; a model may stop at several


class Gguf:
    name = "gguf"
    about = "a GGUF file of llama.cpp, BF16, F16, F32 or Q8_0 (reads the others)"
    single_file = True
    keeps_fp8 = False

    def detect(self, path: Path) -> bool:
        return _file_of(path) is not None

    def open(self, path: Path) -> StoredModel:
        file = _file_of(path)
        if file is None:
            raise ArtifactError("no GGUF file is here", where=str(path), mend="give a .gguf file, or its folder")
        header = _whole(file)
        said = header.metadata
        embedding = header.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise FormatError("the file has no token_embd.weight of two dimensions", where=str(file))
        tied, where = "output.weight" not in header.tensors, str(file)
        factors = _values(header.tensors[ROPE]) if ROPE in header.tensors else None
        config = from_metadata(said, embedding.shape[0], tied, factors, where)
        known = names(config.n_layers)
        heads = {"attn_q": config.n_heads, "attn_k": config.n_kv_heads}
        tensors = {
            known.get(name, name): _entry(known.get(name, name), stored, heads.get(name.split(".")[-2], 0))
            for name, stored in header.tensors.items()
            if name != ROPE
        }
        order = {name: place for place, name in enumerate(known.values())}
        ordered = {name: tensors[name] for name in sorted(tensors, key=lambda name: order.get(name, len(order)))}
        tokenizer = _tokenizer(said, where)
        return StoredModel(
            path,
            config,
            ordered,
            bos=tokenizer.bos if tokenizer else said.get("tokenizer.ggml.bos_token_id"),
            stops=_stops(said, tokenizer),
            tokenizer=tokenizer,
            herd={"made_from": file.name, **_pulled(file.parent)},
            config_file=file.name,
            notes=_notes(header),
        )

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        if options.dtype not in ("", *KINDS):
            raise SettingError(
                f"tensors of a gguf file cannot be {options.dtype!r}",
                where="--dtype",
                mend=f"choose among {', '.join(KINDS)}",
            )
        kind = KINDS[options.dtype] if options.dtype else _own_kind(model)
        metadata: dict[str, Any] = {_STOPS: list(model.stops)} if model.stops else {}
        with tokenizer_folder(model) as folder:
            if folder is None:
                progress.note("the model has no tokenizer: llama.cpp will load it, and take ids only")
                metadata["tokenizer.ggml.model"] = "no_vocab"
            else:
                metadata |= gguf_tokenizer.to_metadata(folder, model.config.vocab_size)
        if model.bos is not None:
            metadata.setdefault("tokenizer.ggml.bos_token_id", model.bos)
        if model.stops:
            metadata.setdefault("tokenizer.ggml.eos_token_id", model.stops[0])
        write_file(model, kind, metadata, out, progress)


def _pulled(folder: Path) -> dict[str, Any]:
    """Where `herd pull` got the folder from: the licence that binds the model travels with that."""
    herd = herd_json(folder)
    return {"pulled": herd["pulled"]} if "pulled" in herd else {}


def _file_of(path: Path) -> Path | None:
    """The (first) GGUF file at a path: itself, or the only model in a folder."""
    if path.is_dir():
        found = sorted(each for each in path.glob("*.gguf") if _number(each) in (None, 1))
        return _file_of(found[0]) if len(found) == 1 else None
    try:
        with open(path, "rb") as handle:
            return path if handle.read(4) == MAGIC else None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    match = _PART.match(path.name)
    return int(match[2]) if match else None


def _whole(file: Path) -> Header:
    """The header of a model, all parts of a cut one together."""
    header = read_header(file)
    parts = header.metadata.get("split.count", 1)
    if parts in (0, 1):
        return header
    match = _PART.match(file.name)
    if match is None or int(match[3]) != parts or int(match[2]) != 1:
        raise ArtifactError(
            f"the model is cut into {parts} files, and this is not the first by its name",
            where=str(file),
            mend="give the file NAME-00001-of-NNNNN.gguf, with the others beside it under their own names",
        )
    tensors = dict(header.tensors)
    for number in range(2, parts + 1):
        other = file.with_name(f"{match[1]}-{number:05d}-of-{parts:05d}.gguf")
        refuse_escape(other, file.parent)
        more = read_header(other).tensors
        if double := tensors.keys() & more.keys():
            raise FormatError(f"tensor {min(double)} is in two files", where=str(other))
        tensors |= more
    return Header(header.metadata, tensors)


def _entry(name: str, stored: Stored, heads: int) -> Entry:
    """A tensor as others see it: q and k in Hugging Face's row order, quantised kinds as fp32."""

    def ordered(found: Tensor) -> Tensor:
        if not heads or found.dim() != 2 or found.shape[0] % (2 * heads):
            return found
        return to_halves(found, heads)

    dtype, packed = _DTYPES.get(stored.kind), None
    if dtype is None:
        in_blocks = stored.kind == Q8_0 and len(stored.shape) == 2 and stored.n_bytes > 0
        blocks = (lambda: ordered(_raw_rows(stored))) if in_blocks else None
        packed = Packed(kind_name(stored.kind), stored.n_bytes, blocks)
    return Entry(name, stored.shape, dtype or torch.float32, lambda: ordered(_values(stored)), stored.path.name, packed)


def _raw_rows(stored: Stored) -> Tensor:
    """The mapped bytes of a quantised tensor, uint8 [rows, bytes a row]."""
    return mapped(stored.path, stored.offset, stored.n_bytes, torch.uint8).reshape(math.prod(stored.shape[:-1]), -1)


def _values(stored: Stored) -> Tensor:
    """A tensor's values: plain kinds are the mapped file, quantised ones as the library's reference has them."""
    if stored.n_bytes == 0:
        return torch.empty(stored.shape, dtype=_DTYPES.get(stored.kind, torch.float32))
    if stored.kind in _DTYPES:
        return mapped(stored.path, stored.offset, stored.n_bytes, _DTYPES[stored.kind]).reshape(stored.shape)
    if stored.kind == Q8_0:
        return dequantize_q8_0(_raw_rows(stored)).reshape(stored.shape)
    gguf = library()
    try:
        wide = gguf.dequantize(_raw_rows(stored).numpy(), gguf.GGMLQuantizationType(stored.kind))
    except NotImplementedError as error:
        raise ArtifactError(f"not read here: {error}", where=str(stored.path)) from error
    return torch.from_numpy(wide).reshape(stored.shape)


def _tokenizer(said: Mapping[str, Any], where: str) -> GgufTokenizer | None:
    return GgufTokenizer(said, where) if said.get("tokenizer.ggml.model", "no_vocab") != "no_vocab" else None


def _stops(said: Mapping[str, Any], tokenizer: GgufTokenizer | None) -> tuple[int, ...]:
    own = said.get(_STOPS)
    if isinstance(own, list):
        return tuple(own)
    if tokenizer is not None:
        return tokenizer.stop_ids
    eos = said.get("tokenizer.ggml.eos_token_id")
    return () if eos is None else (eos,)


def _notes(header: Header) -> tuple[str, ...]:
    quantised = sum(stored.kind not in _DTYPES for stored in header.tensors.values())
    return (f"{quantised} tensors are quantised; other formats get their values as fp32",) if quantised else ()


def _own_kind(model: StoredModel) -> int:
    """The kind that loses nothing: BF16 for a BF16 model, F16 for an F16 one, else F32."""
    kinds = {entry.dtype for entry in model.tensors.values() if len(entry.shape) == 2}
    return {torch.bfloat16: BF16, torch.float16: F16}.get(kinds.pop(), F32) if len(kinds) == 1 else F32
