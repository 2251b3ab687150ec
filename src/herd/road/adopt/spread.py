"""An adopted model on many processes: no process ever holds all of it.

    spread = spread_of(adoption, folder, mesh)    # None: one process, or eight bits, which each has whole
    llama = spread.skeleton()                     # shapes alone; only adapters have memory
    train(llama, ..., weights=spread.weights(llama))

Each process reads its own shards from the mapped files. What is computed before training (the reference of DPO, a
teacher's answers, held-out measures) is asked of a model that is laid out like the one that learns. What was learnt in
full is written out of the last checkpoint by the first process, a tensor at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from herd.files import atomic_file
from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.stages import Context
from herd.train.checkpoints import newest_folder
from herd.train.objectives.terms import Objective
from herd.train.packing import collate
from herd.train.pairs import Preference
from herd.train.precision import compute_dtype
from herd.train.recompute import recompute
from herd.train.settings import TrainSettings
from herd.train.sources import PackedRows
from herd.train.teacher import groups, store_teacher_topk
from herd.weights.format_hf import HuggingFace
from herd.weights.lora import attach
from herd.weights.shard_files import ShardFiles
from herd.weights.sharded import read_manifest
from herd.weights.stored import StoredModel, check
from herd.weights.tensors import Entry

if TYPE_CHECKING:  # torch's engine for many processes takes a second to import: one process has no use for it
    from herd.train.parallel.mesh import Mesh
    from herd.train.parallel.worker import MeshWorker


@dataclass(frozen=True)
class Spread:
    """A model folder, and the mesh that shares it."""

    adoption: Adoption
    stored: StoredModel
    mesh: Mesh

    def skeleton(self) -> Llama:
        """The model as it will learn, on the meta device; adapters have values."""
        adoption, learns = self.adoption, self.adoption.adapter is None
        narrow = not learns and compute_dtype(adoption.train, self.mesh.device) == torch.bfloat16
        with torch.device("meta"):
            llama = Llama(self.stored.config).to(torch.bfloat16 if narrow else torch.float32)
        if adoption.adapter is not None:
            attach(llama, adoption.adapter, device="cpu")
        recompute(llama, adoption.recompute, adoption.recompute_every)
        return llama.train()

    def weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """The values of a skeleton, or of a reward model over one: the folder's, and what has memory of its own."""
        for name, parameter in model.named_parameters():
            entry = self.stored.tensors.get(_stored_name(name))
            yield name, parameter.detach() if entry is None else entry.values()

    def reference(self, model: Llama, pairs: Sequence[Preference], budget: int, path: Path, ctx: Context) -> Tensor:
        """The reference's log-probabilities [pairs, 2] in the dtype of the computation; kept in `path`."""
        if not pairs:
            return torch.zeros(0, 2)
        if not self.stands(path):
            from herd.train.parallel.asking import Asked

            asked = Asked.of(model, self.adoption.train, self.mesh, self.weights(model))
            found_P2 = asked.reference_logprobs(pairs, budget, ctx.progress)
            if self.mesh.is_first:
                with atomic_file(path) as handle:
                    np.save(handle, found_P2.numpy())
            del asked
            gc.collect()
            self._wait()
        return torch.from_numpy(np.load(path))

    def before(
        self,
        model: nn.Module,
        objective: Objective,
        settings: TrainSettings,
        measure: Callable[[MeshWorker], dict[str, float]],
    ) -> dict[str, float]:
        """What is measured of the model before it learns."""
        from herd.train.parallel.worker import MeshWorker

        found = measure(MeshWorker.of(model, objective, settings, self.mesh, self.weights(model)))
        gc.collect()  # what FSDP held goes before the training asks for its own
        return found

    def answer(
        self, folder: Path, rows: PackedRows, k: int, temperature: float, fingerprint: str, ctx: Context
    ) -> None:
        """Keep in `folder` what this model, a teacher, answers to the rows."""
        from herd.train.parallel.asking import Asked

        if self.stands(folder):
            return
        train = self.adoption.train
        with torch.device("meta"):
            teacher = Llama(self.stored.config)
        asked, size = Asked.of(teacher, train, self.mesh, self.weights(teacher)), train.rows_per_microbatch
        if self.mesh.is_first:
            store_teacher_topk(
                *(folder, teacher, rows, rows.n_rows, k),
                tokenizer_fingerprint=fingerprint,
                temperature=temperature,
                rows_per_batch=size,
                progress=ctx.progress,
                answer=asked.topk,
            )
        else:
            for some in groups(rows, rows.n_rows, size):
                asked.topk(collate(some), k, temperature)
        del asked
        gc.collect()
        self._wait()

    def kept(self, settings: TrainSettings) -> TrainSettings:
        """The settings with a checkpoint at the end at least, where a model is written out of it."""
        if self.adoption.adapter is not None or settings.checkpoint_every_steps or settings.checkpoint_every_seconds:
            return settings
        return replace(settings, checkpoint_every_steps=settings.steps)

    def learnt(self, training: Path) -> Mapping[str, Entry]:
        """What a run in full ended in, by the names of the folder (and the score's), read from its last checkpoint."""
        step = newest_folder(training / "checkpoints")
        files = ShardFiles(step, read_manifest(step))
        found = {}
        for held, tensor in files.manifest.tensors.items():
            group, _, name = held.partition(".")
            if group == "average" or (group == "model" and f"average.{name}" not in files.manifest.tensors):
                own = _stored_name(name)
                found[own] = Entry(own, tensor.shape, tensor.dtype, partial(files.read, held))
        return found

    def stands(self, path: Path) -> bool:
        """Whether the first process finds it, on all of them."""
        return bool(self.mesh.sums([float(self.mesh.is_first and path.exists())])[0])

    def _wait(self) -> None:
        """Nobody reads what the first process writes before it is whole."""
        self.mesh.sums([0.0])


def spread_of(adoption: Adoption, folder: Path, mesh: Mesh | None) -> Spread | None:
    """How `folder` is shared out to learn; None in one process, for a base in eight bits and for an FP8 folder."""
    if mesh is None or adoption.base != "plain":
        return None
    return shared_teacher(adoption, folder, mesh)


def shared_teacher(adoption: Adoption, folder: Path, mesh: Mesh | None) -> Spread | None:
    """How `folder` is shared out to be asked; None in one process, and for an FP8 folder."""
    if mesh is None:
        return None
    stored = HuggingFace().open(folder)
    check(stored.config, stored.tensors, str(folder))
    return None if stored.is_fp8 else Spread(adoption, stored, mesh)


def _stored_name(name: str) -> str:
    """A parameter's name in its folder: a reward model's network and an adapter's base have the model's own names."""
    return name.removeprefix("llama.").replace(".base.", ".")
