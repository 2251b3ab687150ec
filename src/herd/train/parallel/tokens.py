"""The tokens between the layers of tensor ranks: cut to parts after a sum, gathered before matrices.

part = scatter_sum(summand, group)         # [B, T, D], a summand on each rank -> [B, T/TP, D] of the sum
whole = gather_tokens(part, group)         # and back
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

from herd.llama.remade import noted
from herd.train.parallel.collectives import gathered, scattered_sum


@dataclass(frozen=True)
class TensorGroup:
    """The processes that share matrices and the tokens between them."""

    mesh: DeviceMesh

    @property
    def processes(self) -> dist.ProcessGroup:
        return self.mesh.get_group()

    @property
    def size(self) -> int:
        return self.mesh.size()

    def __deepcopy__(self, memo: dict[int, Any]) -> TensorGroup:
        return self  # a copy of a model is on the same processes


def _gathered(part_BTD: Tensor, group: TensorGroup) -> Tensor:
    return gathered(part_BTD, group.processes).transpose(0, 1).flatten(1, 2)


def _scattered(whole_BTD: Tensor, group: TensorGroup) -> Tensor:
    rows, length = whole_BTD.shape[:2]
    parts = whole_BTD.view(rows, group.size, length // group.size, -1).transpose(0, 1)
    return scattered_sum(parts, group.processes)


class _GatherTokens(torch.autograd.Function):
    """[B, T/TP, D] of every rank -> [B, T, D]; backwards, the sum over ranks of this rank's tokens."""

    @staticmethod
    def forward(ctx: Any, part_BTD: Tensor, group: TensorGroup) -> Tensor:
        ctx.group = group
        return _gathered(part_BTD, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTD: Tensor) -> tuple[Tensor, None]:
        return _scattered(grad_BTD.contiguous(), ctx.group), None


class _ScatterSum(torch.autograd.Function):
    """[B, T, D], a summand on every rank -> [B, T/TP, D] of the sum; backwards, the gradients of all tokens."""

    @staticmethod
    def forward(ctx: Any, summand_BTD: Tensor, group: TensorGroup) -> Tensor:
        ctx.group = group
        return _scattered(summand_BTD.contiguous(), group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTD: Tensor) -> tuple[Tensor, None]:
        return _gathered(grad_BTD, ctx.group), None


def gather_tokens(part_BTD: Tensor, group: TensorGroup) -> Tensor:
    """Within `making_again` kept as the part, and gathered once more backwards."""
    whole: Tensor = _GatherTokens.apply(part_BTD, group)  # type: ignore[no-untyped-call]
    return noted(whole, _gathered, part_BTD, group, always=True)


def scatter_sum(summand_BTD: Tensor, group: TensorGroup) -> Tensor:
    own: Tensor = _ScatterSum.apply(summand_BTD, group)  # type: ignore[no-untyped-call]
    return own
