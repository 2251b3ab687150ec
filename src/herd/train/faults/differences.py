"""Two records of the same steps under two plans: which tensor differs first, and by how much.

The order is that of computing: a step's activations, microbatch by microbatch in the order of the modules, its loss,
its gradients from the last layer to the first, its weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from herd.errors import ArtifactError

_KINDS = ("forward", "loss", "gradient", "weight")


@dataclass(frozen=True)
class Difference:
    """`relative`: the largest difference over the largest value of the first record's tensor."""

    step: int
    kind: str
    microbatch: int
    name: str
    largest: float
    relative: float
    count: int  # values that differ at all
    of: int

    def __str__(self) -> str:
        where = f"microbatch {self.microbatch}, " if self.kind == "forward" else ""
        what = {"forward": "output of", "loss": "the", "gradient": "gradient of", "weight": "weight"}[self.kind]
        return (
            f"step {self.step}, {where}{what} {self.name}: by {self.largest:.3g}, {self.relative:.2g} of its largest "
            f"value; {self.count:,} of {self.of:,} values differ"
        )


def read_record(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of a record, of every pipeline rank, and its modules in the order in which they ended."""
    parts = sorted(folder.glob("part-*.safetensors"))
    if not parts:
        raise ArtifactError("the run under this plan left no record", where=str(folder))
    found: dict[str, Tensor] = {}
    order: list[str] = []
    for part in parts:
        found |= safetensors.torch.load_file(part)
        with safetensors.safe_open(part, "pt") as file:
            order += json.loads(file.metadata()["order"])
    return found, order


def differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor], modules: Sequence[str]) -> Iterator[Difference]:
    """Every tensor of both, in the order of computing; `modules` as they end in a forward pass."""
    order = {name: place for place, name in enumerate(modules)}

    def place(name: str) -> tuple[int, int, int, int]:
        step, kind, microbatch, own = name.split(".", 3)
        number = order.get(own.removesuffix(".weight"), len(order))
        return int(step), _KINDS.index(kind), int(microbatch), -number if kind == "gradient" else number

    for name in sorted(one.keys() & other.keys(), key=place):
        step, kind, microbatch, own = name.split(".", 3)
        yield _difference(int(step), kind, int(microbatch), own, one[name], other[name])


def _difference(step: int, kind: str, microbatch: int, name: str, a: Tensor, b: Tensor) -> Difference:
    if a.shape != b.shape:
        return Difference(step, kind, microbatch, name, float("inf"), float("inf"), a.numel(), a.numel())
    apart = (a.double() - b.double()).abs()
    apart = torch.where(a.isnan() & b.isnan() | (a == b), 0.0, apart).nan_to_num(float("inf"), posinf=float("inf"))
    largest, scale = float(apart.max()), float(a.double().abs().max())
    relative = largest / scale if scale > 0 else (0.0 if largest == 0 else float("inf"))
    return Difference(step, kind, microbatch, name, largest, relative, int((apart > 0).sum()), a.numel())
