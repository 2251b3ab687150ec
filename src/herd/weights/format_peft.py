"""An adapter folder as a model: its base, found by the name it gives, with every update added. Reads only.

So whatever takes a model in any format takes an adapter: chat, evaluate, inspect, quantize, and convert, which merges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from herd.errors import ArtifactError, SettingError
from herd.progress import Progress
from herd.weights.formats import WriteOptions
from herd.weights.fp8 import dequantize
from herd.weights.herd_json import herd_json
from herd.weights.peft_files import CONFIG, OTHER_MODEL, StoredAdapter, Update, read_adapter
from herd.weights.staging import Staging
from herd.weights.stored import FP8, StoredModel, input_scale_name, scale_name, travelling_files
from herd.weights.tensors import Entry


class Peft:
    name = "peft"
    about = "an adapter of peft (adapter_config.json) beside or naming its base model"
    single_file = False
    keeps_fp8 = False

    def __init__(self, open_base: Callable[[Path], StoredModel]) -> None:
        """`open_base` opens a model in any format: the registry's, which knows them all."""
        self._open_base = open_base

    def detect(self, path: Path) -> bool:
        return (path / CONFIG).is_file()

    def open(self, path: Path) -> StoredModel:
        """The base with its adapted matrices changed; the sums are made in float32 when a tensor is read."""
        adapter = read_adapter(path)
        if adapter.score is not None:
            raise ArtifactError(
                "an adapter of a reward model: it scores, and writes no text",
                where=str(path),
                mend="the model/ beside it is the reward model whole; peft and transformers load either",
            )
        base = self._open_base(_base_of(adapter))
        tensors = dict(base.tensors)
        for name, update in adapter.updates.items():
            entry = tensors.get(f"{name}.weight")
            if entry is None or entry.shape != (len(update.b), update.a.shape[1]):
                found = "has no such matrix" if entry is None else f"has {list(entry.shape)} there"
                wanted = [len(update.b), update.a.shape[1]]
                raise ArtifactError(
                    f"{name} is adapted as {wanted}, and {base.path} {found}", where=str(path), mend=OTHER_MODEL
                )
            tensors.pop(input_scale_name(entry.name), None)
            tensors[entry.name] = _updated(entry, update, tensors.pop(scale_name(entry.name), None), str(path))
        note = f"{len(adapter.updates)} matrices of {base.path} carry the adapter's updates"
        return replace(
            base,
            path=path,
            base=base.path,
            config_file=str(base.path / base.config_file),
            tensors=tensors,
            files={**base.files, **travelling_files(path)},
            herd={**herd_json(path), "base": str(base.path)},
            notes=(*base.notes, note),
        )

    def write(self, model: StoredModel, out: Staging, options: WriteOptions, progress: Progress) -> None:
        raise SettingError(
            "a whole model does not become an adapter", where="--to", mend="`herd train` makes adapters of models"
        )


def _base_of(adapter: StoredAdapter) -> Path:
    """The folder or file that the adapter names, from here or from beside it."""
    named = Path(adapter.base)
    places = [named, adapter.folder / named, adapter.folder.parent / named] if adapter.base else []
    found = next((place for place in places if place.exists()), None)
    if found is None:
        what = f"its base model '{adapter.base}' is not here" if adapter.base else "it names no base model"
        raise ArtifactError(
            what,
            where=str(adapter.folder / CONFIG),
            mend="fetch it (`herd pull NAME`), and write the folder it is in as base_model_name_or_path",
        )
    if (found / CONFIG).is_file() and not (found / "config.json").is_file():
        raise ArtifactError(
            f"its base {found} is an adapter itself",
            where=str(adapter.folder / CONFIG),
            mend="merge that one first (`herd convert ADAPTER FOLDER --to hf`), and name the folder here",
        )
    return found


def _updated(entry: Entry, update: Update, scale: Entry | None, place: str) -> Entry:
    """W + scale * B A in the dtype of W (of FP8: the dtype that its scale widens it to, BF16)."""
    dtype = torch.bfloat16 if entry.dtype == FP8 else entry.dtype

    def values() -> Tensor:
        wide = entry.values().float() if scale is None else dequantize(entry.values(), scale.values())
        return wide.addmm(update.b, update.a, alpha=update.scale).to(dtype)

    return Entry(entry.name, entry.shape, dtype, values, place)
