"""Results that autograd keeps as what they were made of, and makes again backwards: norms, SwiGLU, gathered tokens.

    normed = remade(function, x, weight, eps)      # function(x, weight, eps)
    with making_again(): ...                       # a forward whose graph keeps x where it would keep `normed`

For functions that cost little beside the matrix products that need their results: for those a layer keeps most of what
it keeps (Korthikanti et al. 2022). The same function runs on the same numbers, so gradients are equal bit for bit.
A function may be a collective: whether one is due follows from the graph alone, never from when memory is freed (gloo's
threads let go of a tensor when they please), so who shares a result is counted while they keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


def remade(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), kept as its inputs within `making_again`."""
    return noted(function(*inputs), function, *inputs)


def noted(value: Tensor, function: Callable[..., Tensor], *inputs: Any, always: bool = False) -> Tensor:
    """`value`, which without gradients is function(*inputs). `always`: also within `making_again(False)`."""
    return _noted(value, function, inputs, always) if _open else value


def is_making_again() -> bool:
    """Whether anybody is, in any thread; torch.compile compiles anew when that changes."""
    return _open > 0


def _note(value: Tensor, function: Callable[..., Tensor], inputs: tuple[Any, ...], always: bool) -> Tensor:
    keeper = _KEEPER.get()
    if keeper is not None and (keeper.everything or always):
        keeper.note(value, function, inputs)
    return value


_noted = _note


def _hide_from_compilers() -> None:
    """A compiled graph ends at `_noted`: a result is told by being the same tensor. Done when it is first wanted, for
    torch's compiler takes longer to import than all else that a model which only answers needs."""
    global _noted
    if _noted is _note:
        _noted = torch._dynamo.disable(_note)  # type: ignore[no-untyped-call]


@contextmanager
def making_again(everything: bool = True) -> Iterator[None]:
    """Within one that is open already only more is made again, not less."""
    global _open
    keeper = _KEEPER.get()
    if keeper is not None or not torch.is_grad_enabled():
        with _more(keeper, everything):
            yield
        return
    _hide_from_compilers()
    keeper = _Keeper(everything)
    token, _open = _KEEPER.set(keeper), _open + 1
    try:
        with torch.autograd.graph.saved_tensors_hooks(keeper.pack, keeper.unpack):
            yield
    finally:
        _open -= 1
        _KEEPER.reset(token)
        keeper.end()


@contextmanager
def _more(keeper: _Keeper | None, everything: bool) -> Iterator[None]:
    if keeper is None:
        yield
        return
    before, keeper.everything = keeper.everything, keeper.everything or everything
    try:
        yield
    finally:
        keeper.everything = before


@dataclass(eq=False)
class _Made:
    """A result: how it is made, itself while it is at hand, and how often the graph keeps it."""

    function: Callable[..., Tensor]
    inputs: tuple[Any, ...]
    value: Tensor | None
    uses: int = 0

    def again(self) -> Tensor:
        if self.value is not None:
            return self.value
        return self.function(*(one.again() if isinstance(one, _Packed) else one for one in self.inputs))

    def tensors(self) -> Iterator[Tensor]:
        """What is kept in its place."""
        for one in self.inputs:
            if isinstance(one, _Packed):
                yield from one.made.tensors()
            elif isinstance(one, Tensor):
                yield one


class _Packed(NamedTuple):
    """A result, or a view of it."""

    made: _Made
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def again(self) -> Tensor:
        return self.made.again().as_strided(self.size, self.stride, self.offset)


class _Keeper:
    """Of one forward. Only the latest result can be told from other tensors: whoever keeps one does so before the next
    is made, or makes the next of it."""

    def __init__(self, everything: bool) -> None:
        self.everything = everything
        self._latest: _Made | None = None
        self._open: _Made | None = None  # made again in the backward, and asked for once more

    def note(self, value: Tensor, function: Callable[..., Tensor], inputs: tuple[Any, ...]) -> None:
        kept = tuple(self._kept(one) if isinstance(one, Tensor) else one for one in inputs)
        self.end()
        self._latest = _Made(function, kept, value.detach())

    def end(self) -> None:
        """The forward is over, or goes on to another result: the value goes, its inputs stay with the graph."""
        if self._latest is not None:
            self._latest.value = None
            self._latest = None

    def _kept(self, tensor: Tensor) -> _Packed | Tensor:
        latest = self._latest
        if latest is None or type(tensor) is not Tensor or not _shares(tensor, latest.value):
            return tensor.detach()
        return _Packed(latest, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def pack(self, saved: Tensor) -> _Packed | Tensor:
        found = self._kept(saved)
        observer = OBSERVER.get()
        if isinstance(found, _Packed):
            found.made.uses += 1
            if observer is not None:
                for tensor in found.made.tensors():
                    observer(tensor)
            return found
        if observer is not None:
            observer(saved)
        return saved

    @torch.no_grad()
    def unpack(self, packed: _Packed | Tensor) -> Tensor:
        if not isinstance(packed, _Packed):
            return packed
        made = packed.made
        if self._open is not None and self._open is not made:
            self._open.value = None
        made.value = made.again()
        found, made.uses = packed.again(), made.uses - 1
        if made.uses <= 0:  # the last of those that keep it
            made.value = None
        self._open = made if made.value is not None else None
        return found


def _shares(tensor: Tensor, value: Tensor | None) -> bool:
    """Whether a tensor is the value, or a view of it."""
    return value is not None and bool(tensor.untyped_storage()._cdata == value.untyped_storage()._cdata)


OBSERVER: ContextVar[Callable[[Tensor], object] | None] = ContextVar("observer", default=None)  # of what is kept
_KEEPER: ContextVar[_Keeper | None] = ContextVar("keeper", default=None)
_open = 0  # keepers, of all threads
