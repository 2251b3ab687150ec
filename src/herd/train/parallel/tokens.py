"""The tokens between the layers of tensor ranks: cut to parts after a sum, gathered before matrices.

part = scatter_sum(summand, group)         # [B, T, D], a summand on each rank -> [B, T/TP, D] of the sum
whole = gather_tokens(part, group)         # and back
with keeping_parts(group): ...             # a forward whose graph keeps parts, and gathers again backwards
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

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
    whole: Tensor = _GatherTokens.apply(part_BTD, group)  # type: ignore[no-untyped-call]
    kept = _KEPT.get()
    if kept is not None:
        kept.note(whole, part_BTD.detach())
    return whole


class _Parts:
    """What autograd would keep of all tokens in a forward, kept as this rank's part, and gathered again backwards.

    That is most of what a layer keeps: matrices need their inputs for the gradient (Korthikanti et al. 2022).
    """

    def __init__(self, group: TensorGroup) -> None:
        self.group = group
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}  # by the storage of the whole, which lives as long as this
        self._made: dict[int, weakref.ref[Tensor]] = {}

    def note(self, whole: Tensor, part: Tensor) -> None:
        self._parts[whole.untyped_storage()._cdata] = whole.detach(), part

    def end(self) -> None:
        """The forward is over: the wholes go, the parts stay with the graph."""
        self._parts.clear()

    def pack(self, saved: Tensor) -> Any:
        found = self._parts.get(saved.untyped_storage()._cdata) if type(saved) is Tensor else None
        observer = OBSERVER.get()
        if observer is not None:
            observer(saved if found is None else found[1])
        if found is None:
            return saved
        return _Packed(found[1], saved.size(), saved.stride(), int(saved.storage_offset()))

    def unpack(self, packed: Any) -> Tensor:
        if not isinstance(packed, _Packed):
            return cast(Tensor, packed)
        made = self._made.get(id(packed.part))
        whole = made() if made is not None else None
        if whole is None:  # the matrices that share an input ask one after the other
            whole = _gathered(packed.part, self.group)
            self._made[id(packed.part)] = weakref.ref(whole)
        return whole.as_strided(packed.size, packed.stride, packed.offset)


class _Packed(NamedTuple):
    part: Tensor
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


OBSERVER: ContextVar[Callable[[Tensor], object] | None] = ContextVar("observer", default=None)  # of what is kept
_KEPT: ContextVar[_Parts | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_parts(group: TensorGroup) -> Iterator[None]:
    if not torch.is_grad_enabled():
        yield
        return
    parts = _Parts(group)
    before = _KEPT.set(parts)
    try:
        with torch.autograd.graph.saved_tensors_hooks(parts.pack, parts.unpack):
            yield
    finally:
        _KEPT.reset(before)
        parts.end()


def scatter_sum(summand_BTD: Tensor, group: TensorGroup) -> Tensor:
    own: Tensor = _ScatterSum.apply(summand_BTD, group)  # type: ignore[no-untyped-call]
    return own
