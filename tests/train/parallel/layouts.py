"""Whole runs of each objective, in one process and laid out over many, for the table of layouts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from cases import Case, cases

from herd.train.history import TrainResult
from herd.train.loop import train
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.plan import parse_plan
from herd.train.settings import TrainSettings
from herd.train.sources import FixedBatches

STEPS = 10


@dataclass(frozen=True)
class Trajectory:
    """Losses and gradient norms of every step, the metrics of the last, and a checksum of the weights after it."""

    losses: list[float]
    norms: list[float]
    metrics: dict[str, float]
    weights: dict[str, torch.Tensor]


def settings(**changes: object) -> TrainSettings:
    values = {"steps": STEPS, "batch_tokens": 192, "seq_len": 24, "peak_lr": 1e-3, "warmup_steps": 2}
    return TrainSettings(**{**values, "checkpoint_every_seconds": 0, "spike_factor": 0, **changes})


def find(name: str, **changes: object) -> Case:
    return next(case for case in cases(**({"dim": 32} | changes)) if case.name == name)


def trained(case: Case, mesh: Mesh | None = None, folder: Path | None = None, **changes: object) -> Trajectory:
    """Ten steps over the case's micro-batches; each step begins elsewhere in them."""
    steps = [case.batches[at:] + case.batches[:at] for at in range(len(case.batches))]
    model = case.model()
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        result = train(model, case.objective, FixedBatches(steps), settings(**changes), place, mesh=mesh)
    return trajectory(result, {name: param.detach().clone() for name, param in model.named_parameters()})


def trajectory(result: TrainResult, weights: dict[str, torch.Tensor]) -> Trajectory:
    records = result.history
    return Trajectory([r.loss for r in records], [r.grad_norm for r in records], dict(records[-1].metrics), weights)


def laid_out(
    rank: int, plans: list[str], names: list[str], changes: dict[str, object]
) -> dict[tuple[str, str], Trajectory]:
    """Work for `run_on`: every plan and case, one after the other on the same processes."""
    found = {}
    for text in plans:
        mesh = Mesh.of(parse_plan(text), torch.device("cpu"))
        for name in names:
            one = trained(find(name, **changes), mesh)
            found[text, name] = one if rank == 0 else None
    return found
