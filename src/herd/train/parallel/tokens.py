"""The tokens between the layers of tensor ranks: cut to parts after a sum, gathered before matrices.

part = scatter_sum(summand, group)         # [B, T, D], a summand on each rank -> [B, T/TP, D] of the sum
whole = gather_tokens(part, group)         # and back
with keeping_parts(group): ...             # a forward whose graph keeps parts, and gathers again backwards
"""

from __future__ import annotations

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

    That is most of what a layer keeps: matrices need their inputs for the gradient (Korthikanti et al. 2022). Gathering
    is a collective, so whether one is due must follow from the graph alone, never from when memory happens to be freed
    (gloo's threads let go of a tensor when they please): matrices that share an input are counted as they keep it.
    """

    def __init__(self, group: TensorGroup) -> None:
        self.group = group
        self._latest: _Shared | None = None  # gathered in the forward; whoever keeps it does so before the next
        self._open: _Shared | None = None  # gathered in the backward

    def note(self, whole: Tensor, part: Tensor) -> None:
        self.end()
        self._latest = _Shared(part, whole.detach())

    def end(self) -> None:
        """The forward is over, or goes on to other tokens: the whole goes, its part stays with the graph."""
        if self._latest is not None:
            self._latest.whole = None
            self._latest = None

    def pack(self, saved: Tensor) -> Any:
        latest = self._latest
        found = latest if latest is not None and latest.is_in(saved) else None
        observer = OBSERVER.get()
        if observer is not None:
            observer(saved if found is None else found.part)
        if found is None:
            return saved
        found.uses += 1
        return _Packed(found, saved.size(), saved.stride(), int(saved.storage_offset()))

    def unpack(self, packed: Any) -> Tensor:
        if not isinstance(packed, _Packed):
            return cast(Tensor, packed)
        shared = packed.shared
        if self._open is not None and self._open is not shared:
            self._open.whole = None
        if shared.whole is None:
            shared.whole = _gathered(shared.part, self.group)
        whole, shared.uses = shared.whole, shared.uses - 1
        if shared.uses <= 0:  # the last of the matrices that have this input
            shared.whole = None
        self._open = shared if shared.whole is not None else None
        return whole.as_strided(packed.size, packed.stride, packed.offset)


@dataclass(eq=False)
class _Shared:
    """A gathered tensor: this rank's part of it, the whole while it is at hand, and how often the graph keeps it."""

    part: Tensor
    whole: Tensor | None
    uses: int = 0

    def is_in(self, saved: Tensor) -> bool:
        """Whether a tensor is the whole, or a view of it."""
        if self.whole is None or type(saved) is not Tensor:
            return False
        return bool(saved.untyped_storage()._cdata == self.whole.untyped_storage()._cdata)


class _Packed(NamedTuple):
    shared: _Shared
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
