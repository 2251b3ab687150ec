"""The files of one rank of a checkpoint: its shards, hashed on their way to the disk, and synced."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from herd.errors import StorageError
from herd.files import sha256_of
from herd.train.sharded_shards import Shard
from herd.weights.sharded import STATE, FileSum, Manifest, Place, ShardedTensor, group_of, key_of
from herd.weights.tensors import Entry, header, raw_bytes


@dataclass(frozen=True)
class Written:
    """A file that is on the disk, and what is in it; small, for it goes to rank 0."""

    name: str
    sum: FileSum
    tensors: Mapping[str, ShardedTensor]  # with the places in this file only


def write_shards(folder: Path, shards: Sequence[Shard], rank: int, world: int) -> list[Written]:
    """One file for each group of names (model, optimiser, average, rng), in the order given."""
    groups: dict[str, list[Shard]] = {}
    for shard in shards:
        groups.setdefault(group_of(shard.name), []).append(shard)
    suffix = f"-{rank:05d}-of-{world:05d}" if world > 1 else ""
    return [_write(folder, f"{group}{suffix}.safetensors", own) for group, own in groups.items()]


def _write(folder: Path, name: str, shards: Sequence[Shard]) -> Written:
    entries = [_entry(shard) for shard in shards]
    sha, size = hashlib.sha256(), 0
    with open(folder / name, "wb") as handle:
        for data in itertools.chain([memoryview(header(entries, _offsets(shards)))], map(raw_bytes, entries)):
            handle.write(data)
            sha.update(data)
            size += len(data)
        handle.flush()
        os.fsync(handle.fileno())
    return Written(name, FileSum(size, sha.hexdigest()), {shard.name: _placed(shard, name) for shard in shards})


def _entry(shard: Shard) -> Entry:
    return Entry(key_of(shard.name), tuple(shard.local.shape), shard.local.dtype, lambda: shard.local)


def _placed(shard: Shard, file: str) -> ShardedTensor:
    place = Place(file, key_of(shard.name), shard.offset, tuple(shard.local.shape))
    return ShardedTensor(shard.local.dtype, shard.whole, (place,))


def _offsets(shards: Sequence[Shard]) -> Mapping[str, str]:
    """The header's word for shards, as torch.distributed.checkpoint writes it; none where all are whole tensors."""
    if all(shard.is_whole for shard in shards):
        return {}
    offsets = {key_of(shard.name): {"saved_offsets": list(shard.offset)} for shard in shards}
    return {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0"}


def write_manifest(folder: Path, written: Iterable[Written]) -> None:
    """The manifest over what all ranks wrote, and over the small files that lie in the folder already."""
    own = [path for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"]
    files = {path.name: _sum_of(path) for path in own}
    places: dict[str, list[Place]] = {}
    forms: dict[str, ShardedTensor] = {}
    for file in written:
        files[file.name] = file.sum
        for name, tensor in file.tensors.items():
            forms.setdefault(name, tensor)
            places.setdefault(name, []).extend(tensor.places)
    assert STATE in files
    tensors = {name: ShardedTensor(form.dtype, form.shape, tuple(places[name])) for name, form in forms.items()}
    Manifest(files, tensors).write(folder)


def _sum_of(path: Path) -> FileSum:
    return FileSum(path.stat().st_size, sha256_of(path))


def refused(error: OSError, folder: Path, who: str = "") -> StorageError:
    """What the system refuses, a full disk or a missing right, as an error that a user can act on."""
    return StorageError(
        f"{who}cannot write a checkpoint: {error.strerror or error}",
        where=str(error.filename or folder),
        mend="mend that (make room on that disk, ...) and run the same command again; it goes on where it stopped",
    )
