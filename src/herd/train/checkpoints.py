"""Checkpoints of a run: `folder/checkpoints/step-N/`, whole or not there, the last few kept.

Each holds `model.safetensors` (float32 masters), `optimiser.safetensors` (AdamW's moments), `average.safetensors`
(the annealing mean, if any) and `state.json` (step, counters, settings, and the SHA-256 of the others). A damaged
checkpoint is reported and the one before it is used. One process only; sharded checkpoints are not covered.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from herd.errors import ArtifactError, FormatError
from herd.files import atomic_file, atomic_folder, read_json, sha256_of, write_json
from herd.progress import Progress

_NAME = re.compile(r"step-(\d+)")
_LEFT_ASIDE = re.compile(r"\.step-\d+\.(\d+\.part|old)")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped."""

    state: dict[str, Any]  # plain values: step, tokens, seconds, window, average_count, settings, objective
    tensors: Mapping[str, Mapping[str, Tensor]]  # by file: model, optimiser, average

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/step-N` whole or not at all, then remove all but the newest `keep`.

    Raises StorageError when the disk is full; what stood before is untouched.
    """
    path = folder / f"step-{checkpoint.step}"
    with atomic_folder(path) as aside:
        hashes = {}
        for name, tensors in checkpoint.tensors.items():
            with atomic_file(aside / f"{name}.safetensors") as handle:
                handle.write(safetensors.torch.save({key: t.detach().contiguous() for key, t in tensors.items()}))
            hashes[name] = sha256_of(aside / f"{name}.safetensors")
        write_json(aside / "state.json", {**checkpoint.state, "sha256": hashes})
    for step in _steps(folder)[keep:]:
        shutil.rmtree(folder / f"step-{step}", ignore_errors=True)
    return path


def load_newest(folder: Path, progress: Progress) -> Checkpoint | None:
    """The newest sound checkpoint, or None when there is none at all.

    A damaged one is noted and passed over. Raises ArtifactError when every one is damaged.
    """
    _remove_left_aside(folder)
    faults = []
    for step in _steps(folder):
        try:
            return _load(folder / f"step-{step}")
        except (ArtifactError, FormatError) as error:
            faults.append(f"checkpoint step-{step} cannot be used: {error.message}")
            progress.note(faults[-1])
    if faults:
        raise ArtifactError("; ".join(faults), where=str(folder), mend=f"remove {folder} to train from the beginning")
    return None


def _load(path: Path) -> Checkpoint:
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or not isinstance(state.get("sha256"), dict) or "step" not in state:
        raise FormatError("not the state of a checkpoint", where=str(path / "state.json"))
    tensors = {}
    for name, digest in state["sha256"].items():
        file = path / f"{name}.safetensors"
        if not file.exists():
            raise ArtifactError(f"{file.name} is missing", where=str(file))
        if sha256_of(file) != digest:
            raise ArtifactError(f"{file.name} is damaged or cut short", where=str(file))
        try:
            tensors[name] = safetensors.torch.load_file(file)
        except SafetensorError as error:
            raise FormatError(f"{file.name}: {error}", where=str(file)) from error
    return Checkpoint(state, tensors)


def _steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, the newest first."""
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(found[1]) for found in names if found), reverse=True)


def _remove_left_aside(folder: Path) -> None:
    """What a killed run left half-written."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFT_ASIDE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
