"""A training checkpoint as a model, of one process or of thousands: read one tensor at a time, on any machine.

    herd convert runs/NAME/.../checkpoints/step-800 MODEL --to hf

No process group, no GPU, no pickle: the manifest says where the shards of a tensor lie. A file is hashed before
anything of it is used. Within the annealing the tensors are the mean of the weights so far, which is what the run ends
in (paper, section 3.4.3). Reads only; not here: what is no language model, or was trained in part (adapters).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from herd.errors import ArtifactError, SettingError
from herd.files import read_json
from herd.llama.config import LlamaConfig
from herd.progress import Progress
from herd.weights.config_json import from_hf
from herd.weights.format_hf import special_ids
from herd.weights.formats import WriteOptions
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import STATE, Manifest, is_checkpoint, is_old_checkpoint, read_manifest, verify
from herd.weights.staging import Staging
from herd.weights.stored import StoredModel, expected_shapes, in_order, travelling_files
from herd.weights.tensors import Entry

MODEL, AVERAGE = "model.", "average."


class Checkpoint:
    name = "checkpoint"
    about = "a checkpoint of herd's training (manifest.json), of any number of processes"
    single_file = False
    keeps_fp8 = False

    def detect(self, path: Path) -> bool:
        return is_checkpoint(path) or is_old_checkpoint(path)

    def open(self, path: Path) -> StoredModel:
        content = _config_of(path)
        config = from_hf(content, str(path / "config.json"))
        manifest = read_manifest(path)
        verify(path, manifest, [name for name in manifest.files if not name.endswith(".safetensors")])
        source = _source(manifest, config, path)
        reader = _Reader(path, manifest)
        tensors = {
            name: Entry(
                name,
                manifest.tensors[held].shape,
                manifest.tensors[held].dtype,
                partial(reader.read, held),
                manifest.tensors[held].places[0].file,
            )
            for name, held in source.items()
        }
        state = read_json(path / STATE)
        averaged = int(state["average_count"]) if any(held.startswith(AVERAGE) for held in source.values()) else 0
        bos, stops = special_ids(path, content)
        return StoredModel(
            path,
            config,
            in_order(config, tensors),
            bos=bos,
            stops=stops,
            files=travelling_files(path),
            herd=_lineage(state, averaged),
            notes=_notes(averaged, bool(travelling_files(path))),
        )

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        raise SettingError(
            "a model does not become a checkpoint",
            where="--to",
            mend="`herd train` starts from a model folder as it is",
        )


def _config_of(path: Path) -> Any:
    if (path / "config.json").is_file():
        return read_json(path / "config.json")
    if is_old_checkpoint(path):
        said, mend = "it does not say", "go on with its run, whose next checkpoint says it"
    else:
        said, mend = "what was trained is no language model", "a reward model is written when its training ends"
    raise ArtifactError(
        f"of which model this is a checkpoint, {said}: it has no config.json", where=str(path), mend=mend
    )


def _source(manifest: Manifest, config: LlamaConfig, path: Path) -> dict[str, str]:
    """The name in the checkpoint of each tensor of the model: its mean where there is one."""
    held = {name.removeprefix(MODEL): name for name in manifest.tensors if name.startswith(MODEL)}
    frozen = [name for name in expected_shapes(config) if name not in held]
    if frozen:
        raise ArtifactError(
            f"it holds what was trained, and {len(frozen)} tensors of the model were not (first: {frozen[0]})",
            where=str(path),
            mend="let the run end: it writes the adapter, which opens as the model that it makes of its base",
        )
    return {name: AVERAGE + name if AVERAGE + name in manifest.tensors else own for name, own in held.items()}


class _Reader:
    """Tensors of files that were found whole; each is hashed once, when the first of its tensors is asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._files = ShardFiles(path, manifest)
        self._verified = functools.cache(lambda name: verify(path, manifest, [name]))

    def read(self, name: str) -> Tensor:
        for place in self._files.manifest.tensors[name].places:
            self._verified(place.file)
        return self._files.read(name)


def _lineage(state: Mapping[str, Any], averaged: int) -> dict[str, Any]:
    known = {key: state[key] for key in ("objective", "step", "tokens") if key in state}
    return {**known, **({"averaged": averaged} if averaged else {})}


def _notes(averaged: int, has_tokenizer: bool) -> tuple[str, ...]:
    mean = f"the mean of {averaged} weight sets of the annealing, as the run would end in"
    bare = "no tokenizer is in the checkpoint: copy the one that the run was trained with beside the model"
    return (*((mean,) if averaged else ()), *(() if has_tokenizer else (bare,)))
