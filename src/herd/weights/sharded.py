"""A training checkpoint on disk: safetensors files that each hold shards of tensors, and a manifest of what lies where.

    step-800/
        manifest.json                          every file with its bytes and SHA-256, every tensor with its shards
        state.json                             step, tokens, settings, loss window: the run's plain values
        config.json, tokenizer.json, ...       the model's, so that `herd convert step-800 OUT --to hf` needs no more
        model-00000-of-00004.safetensors       what rank 0 wrote of the model, under Hugging Face's names
        optimiser-00000-of-00004.safetensors   and of AdamW's moments; average-*, rng-* alike

A run of one process writes `model.safetensors`, whole. The headers carry the offsets as torch.distributed.checkpoint
writes them (DCP_SHARDING_INFO), whose HuggingFaceStorageReader therefore reads these folders too. No pickle anywhere.
`train/` writes them; `shard_files.py` reads them, for `herd convert` and for training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from herd.errors import ArtifactError, FormatError
from herd.files import read_json, sha256_of, write_text
from herd.weights.tensors import DTYPES, printable, refuse_escape

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = "herd checkpoint"
VERSION = 1
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_OLD_RNG, _OLD_MOMENTS = ("torch_rng_state", "cuda_rng_state"), "optimiser.safetensors"

Box = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A shard: `shape` values of a tensor, from `offset` on, under `key` in `file`."""

    file: str
    key: str
    offset: Box
    shape: Box


@dataclass(frozen=True)
class ShardedTensor:
    """A tensor of a checkpoint. Its shards fill it, without a gap and without an overlap."""

    dtype: torch.dtype
    shape: Box
    places: tuple[Place, ...]


@dataclass(frozen=True)
class FileSum:
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. Names are `model.NAME`, `optimiser.exp_avg.NAME`, `average.NAME`, `rng.RANK.KIND`."""

    files: Mapping[str, FileSum]
    tensors: Mapping[str, ShardedTensor] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Compact, one file and one tensor a line; a digest over all of it at the end."""
        numbers = {name: number for number, name in enumerate(self.files)}
        content = {
            "format": FORMAT,
            "version": VERSION,
            "files": {name: [one.n_bytes, one.sha256] for name, one in self.files.items()},
            "tensors": {name: _plain(tensor, numbers) for name, tensor in self.tensors.items()},
        }
        write_text(folder / MANIFEST, _text({**content, "sha256": _digest(content)}))


def key_of(name: str) -> str:
    """The key of a tensor in its file: the model's have Hugging Face's names, all others their whole name."""
    return name.removeprefix("model.") if group_of(name) == "model" else name


def group_of(name: str) -> str:
    """Which of the files of a rank a tensor goes into."""
    return name.partition(".")[0]


def _plain(tensor: ShardedTensor, numbers: Mapping[str, int]) -> list[Any]:
    """[dtype, shape, [[number of the file, offset, shape], ...]]"""
    places = [[numbers[place.file], list(place.offset), list(place.shape)] for place in tensor.places]
    return [_DTYPE_NAMES[tensor.dtype], list(tensor.shape), places]


def _text(content: Mapping[str, Any]) -> str:
    blocks = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"  {json.dumps(name)}: {_compact(item)}" for name, item in value.items())
            blocks.append(f"{json.dumps(key)}: {{\n{lines}\n}}")
        else:
            blocks.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_compact(content).encode()).hexdigest()


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the manifest of a checkpoint; looks at its first bytes only."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return f'"format": "{FORMAT}"'.encode() in handle.read(64)


def is_old_checkpoint(folder: Path) -> bool:
    """Whether a folder is one of herd 0.1: no manifest, hashes in state.json."""
    return not (folder / MANIFEST).exists() and all((folder / name).is_file() for name in (STATE, _OLD_MOMENTS))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, of one from before there were manifests too (state.json had the hashes then).

    FormatError or ArtifactError for one that is missing, changed, cut short, or from a later herd.
    """
    if not (folder / MANIFEST).exists() and (folder / STATE).exists():
        return _before_manifests(folder)
    where = str(folder / MANIFEST)
    content = read_json(folder / MANIFEST)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError("not the manifest of a checkpoint", where=where)
    if content.get("version") != VERSION:
        raise FormatError(f"a checkpoint of version {content.get('version')!r}; this herd reads {VERSION}", where=where)
    digest = content.pop("sha256", None)
    if digest != _digest(content):
        raise FormatError(f"{MANIFEST} is damaged: its digest is another", where=where)
    try:
        files = {str(name): FileSum(int(size), str(sha)) for name, (size, sha) in content["files"].items()}
        names = list(files)
        tensors = {str(name): _tensor(str(name), plain, names) for name, plain in content["tensors"].items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormatError(f"{MANIFEST} is not written as a manifest is: {error!r}", where=where) from error
    found = Manifest(files, tensors)
    _check(found, folder)
    return found


def _tensor(name: str, plain: Any, files: list[str]) -> ShardedTensor:
    dtype, shape, places = plain
    key = key_of(name)
    return ShardedTensor(
        DTYPES[dtype],
        _box(shape),
        tuple(Place(files[number], key, _box(offset), _box(size)) for number, offset, size in places),
    )


def _box(numbers: Any) -> Box:
    box = tuple(numbers)
    if not all(type(number) is int and number >= 0 for number in box):
        raise ValueError(f"{numbers!r} are no lengths")
    return box


def _check(manifest: Manifest, folder: Path) -> None:
    """Strangers' manifests: files stay in the folder, and shards are as large as tensors and files say."""
    where = str(folder / MANIFEST)
    used = dict.fromkeys(manifest.files, 0)
    for name in manifest.files:
        if Path(name).name != name or name.startswith("."):
            raise FormatError(f"it names a file {printable(name)!r} outside of the folder", where=where)
        refuse_escape(folder / name, folder)
    for name, tensor in manifest.tensors.items():
        inside = all(
            len(place.offset) == len(place.shape) == len(tensor.shape)
            and all(o + s <= whole for o, s, whole in zip(place.offset, place.shape, tensor.shape, strict=True))
            for place in tensor.places
        )
        size = sum(math.prod(place.shape) for place in tensor.places)
        if not inside or size != math.prod(tensor.shape) or _overlap(tensor.places):
            raise FormatError(f"the shards of {printable(name)} do not make it up", where=where)
        for place in tensor.places:
            used[place.file] += math.prod(place.shape) * tensor.dtype.itemsize
    for name, size in used.items():
        if size > manifest.files[name].n_bytes:
            raise FormatError(f"{name} is too small for the shards it is said to hold", where=where)


def _overlap(places: Sequence[Place]) -> bool:
    """Whether two shards share a value: compares those that do along the dimension that is cut most, which are few."""
    if len(places) < 2:
        return False
    dims = range(len(places[0].shape))
    most = max(dims, key=lambda dim: len({place.offset[dim] for place in places}))
    ordered = sorted(places, key=lambda place: place.offset[most])
    for number, one in enumerate(ordered, 1):
        end = [o + s for o, s in zip(one.offset, one.shape, strict=True)]
        while number < len(ordered) and (other := ordered[number]).offset[most] < end[most]:
            if all(max(one.offset[d], other.offset[d]) < min(end[d], other.offset[d] + other.shape[d]) for d in dims):
                return True
            number += 1
    return False


def verify(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise ArtifactError for the first of these files that is missing, cut short or changed."""
    for name in names:
        path, said = folder / name, manifest.files[name]
        if not path.exists():
            raise ArtifactError(f"{name} is missing", where=str(path))
        if (said.n_bytes and path.stat().st_size != said.n_bytes) or sha256_of(path) != said.sha256:
            raise ArtifactError(f"{name} is damaged or cut short", where=str(path))


def _before_manifests(folder: Path) -> Manifest:
    """Checkpoints of herd 0.1: one process, `sha256` in state.json, whole tensors with short names in each file."""
    content = read_json(folder / STATE)
    hashes = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(hashes, dict) or "step" not in content:
        raise FormatError("not the state of a checkpoint", where=str(folder / STATE))
    files, tensors = {}, {}
    for group, digest in hashes.items():
        name = f"{group}.safetensors"
        if Path(name).name != name or not (folder / name).exists():
            raise ArtifactError(f"{name} is missing", where=str(folder / name))
        files[name] = FileSum(0, str(digest))
        verify(folder, Manifest(files), [name])  # before its header is read
        handle: Any = safe_open(folder / name, framework="pt", device="cpu")
        for key in handle.keys():  # noqa: SIM118  # a handle is no mapping
            part = handle.get_slice(key)
            shape = tuple(part.get_shape())
            place = Place(name, key, (0,) * len(shape), shape)
            tensors[_old_name(group, key)] = ShardedTensor(DTYPES[part.get_dtype()], shape, (place,))
    return Manifest(files, tensors)


def _old_name(group: str, key: str) -> str:
    return f"rng.0.{key}" if key in _OLD_RNG else f"{group}.{key}"
