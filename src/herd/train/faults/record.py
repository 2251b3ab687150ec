"""The first steps of a model under one plan, written down whole: activations, gradients and weights, by name.

    torchrun --nproc-per-node 2 -m herd.train.faults.record SPEC.json

SPEC is a `Spec` as JSON. However the plan cuts a tensor, it is put together again, so that plans can be compared
(differences.py). For models and batches that fit in one process's memory many times over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from herd.config import load, save, to_plain
from herd.files import atomic_file, make_folder
from herd.llama.config import LlamaConfig
from herd.train.batch import Batch, Part
from herd.train.guards import read_batches
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.terms import Objective
from herd.train.packing import Row, collate
from herd.train.parallel.collectives import gathered
from herd.train.parallel.context import gather_context
from herd.train.parallel.mesh import Mesh, processes
from herd.train.parallel.plan import parse_plan
from herd.train.parallel.rows import padded_length
from herd.train.parallel.worker import MeshWorker
from herd.train.settings import TrainSettings
from herd.train.worker import Worker, summed
from herd.weights.build import load_any

# AdamW's first updates are nearly signs of gradients, so rounding would turn a weight's update over where its gradient
# is nearly zero. A large epsilon keeps updates in proportion.
_EPS, _LR = 1e-4, 1e-3


@dataclass(frozen=True)
class Spec:
    """What to run. Without `batch`, a file of saved microbatches, made-up documents are learnt."""

    model: str
    plan: str
    out: str
    batch: str = ""
    steps: int = 1
    rows: int = 4
    seq_len: int = 64
    microbatches: int = 2
    dtype: str = "float32"
    device: str = "cpu"


def key(step: int, kind: str, microbatch: int, name: str) -> str:
    """The name of a tensor in a record; kinds are forward, loss, gradient and weight."""
    return f"{step}.{kind}.{microbatch}.{name}"


def write(spec: Spec, folder: Path) -> Path:
    """The spec as a file for `main`."""
    make_folder(folder)
    path = folder / "spec.json"
    save(path, to_plain(spec))
    return path


def batches_of(spec: Spec, config: LlamaConfig) -> list[Batch]:
    """The microbatches of every step."""
    if spec.batch:
        return read_batches(Path(spec.batch))[1]
    return [_made_up(config.vocab_size, spec.rows, spec.seq_len, seed) for seed in range(spec.microbatches)]


def _made_up(vocabulary: int, rows: int, length: int, seed: int) -> Batch:
    """Rows of three documents each."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        tokens = rng.integers(0, vocabulary, length + 1)
        borders = np.sort(rng.choice(np.arange(1, length), 2, replace=False))
        documents = np.searchsorted(borders, np.arange(length), side="right")
        positions = np.arange(length) - np.concatenate([[0], borders])[documents]
        found.append(Row(tokens[:-1], tokens[1:], np.ones(length, np.float32), documents, positions))
    return collate(found)


def objective_of(batch: Batch) -> Objective:
    if "reference_B" in batch.extras:
        return DirectPreference()
    return Distillation() if "teacher_ids_BTk" in batch.extras else LanguageModelling()


def record(spec: Spec, mesh: Mesh | None) -> None:
    """Run the steps on this process, and write what of them is its to write."""
    model = load_any(spec.model).train()
    batches, config = batches_of(spec, model.config), model.config
    objective = objective_of(batches[0])
    length = max(batch.tokens_BT.shape[1] for batch in batches)
    settings = TrainSettings(
        spec.steps, length * sum(len(b.tokens_BT) for b in batches), length, eps=_EPS, dtype=cast(Any, spec.dtype)
    )
    worker = Worker(model, settings) if mesh is None else MeshWorker.of(model, objective, settings, mesh)
    taken: dict[str, Tensor] = {}
    order: list[str] = []  # of modules, as they end
    for step in range(1, spec.steps + 1):
        with _activations(worker.optimiser.compute) as seen:
            terms = worker.forward_backward([batch.share(worker.part) for batch in batches], objective)
        order = list(seen)
        for name, made in seen.items():
            for number, tensor in enumerate(made):
                taken[key(step, "forward", number, name)] = _whole(tensor, batches[number], name, config, mesh)
        total, count, *_ = worker.agreed(summed(terms)[0])
        taken[key(step, "loss", 0, "loss")] = torch.tensor(total / count)
        gradients = worker.optimiser.gradients()
        taken |= {key(step, "gradient", 0, name): _full(grad).float() for name, grad in gradients.items()}
        worker.mean_and_clip(count)
        worker.optimiser.step(_LR)
        taken |= {key(step, "weight", 0, name): _full(param) for name, param in worker.optimiser.masters.items()}
    place = mesh.place if mesh else None
    if place is None or place.dp == place.cp == place.tp == 0:
        with atomic_file(Path(spec.out) / f"part-{place.pp if place else 0}.safetensors") as handle:
            whole = {name: tensor.contiguous() for name, tensor in taken.items()}
            handle.write(safetensors.torch.save(whole, {"order": json.dumps(order)}))


@contextmanager
def _activations(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What every module makes of tokens, [B, T, ...], by name, a tensor for each microbatch."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def look(module: nn.Module, given: Any, made: Any) -> None:
            recomputed = torch._C._current_graph_task_id() != -1  # within a backward
            if isinstance(made, Tensor) and made.ndim == 3 and not recomputed:
                seen.setdefault(name, []).append(made.detach().clone())

        return look

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _widths(name: str, config: LlamaConfig) -> int:
    """Values a token that a module makes in one process."""
    last = name.rpartition(".")[2]
    heads = {"q_proj": config.n_heads, "k_proj": config.n_kv_heads, "v_proj": config.n_kv_heads}
    if last in heads:
        return heads[last] * config.head_dim
    return config.ffn_dim if last in ("gate_proj", "up_proj") else config.dim


def _whole(part_BTX: Tensor, batch: Batch, name: str, config: LlamaConfig, mesh: Mesh | None) -> Tensor:
    """A rank's part of an activation, put together over tensor, context and data ranks, without padding."""
    if mesh is None:
        return part_BTX
    plan, length = mesh.plan, batch.tokens_BT.shape[1]
    if plan.tp > 1:
        here = padded_length(length, plan.cp, plan.tp) // plan.cp if plan.cp > 1 else length
        if part_BTX.shape[1] < here:
            part_BTX = torch.cat([*gathered(part_BTX, mesh.group("tp"))], 1)
        if part_BTX.shape[2] < _widths(name, config):
            part_BTX = torch.cat([*gathered(part_BTX, mesh.group("tp"))], 2)
    if plan.cp > 1 and part_BTX.shape[1] < length:
        part_BTX = gather_context(part_BTX, mesh.context)
    part_BTX, rows = part_BTX[:, :length], len(batch.tokens_BT)
    if plan.dp > 1:
        parts = gathered(part_BTX, mesh.group("dp"))
        part_BTX = torch.cat([part[: len(Part(i, plan.dp).of(rows))] for i, part in enumerate(parts)])
    return part_BTX


def _full(tensor: Tensor) -> Tensor:
    full = getattr(tensor.detach(), "full_tensor", None)
    return cast(Tensor, full()).clone() if full else tensor.detach().clone()


def main(arguments: Sequence[str]) -> int:
    torch.manual_seed(0)
    spec = load(Path(arguments[0]), Spec)
    with processes(parse_plan(spec.plan), spec.device) as mesh:
        record(spec, mesh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
