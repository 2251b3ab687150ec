"""Replay of a saved batch: which module first makes a value that is not finite, forward or backward.

    origin = first_not_finite(model, objective, batches)

A module is the origin when what it is given is finite and what it makes is not. Modules are asked as they end, inner
ones first, so the smallest one is named; where the fault lies between its parts (scores of attention, a product of two
projections), that is the module around them. One process, the plain network; the weights are looked at first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from herd.devices import device_of
from herd.train.batch import Batch
from herd.train.objectives.terms import Objective


@dataclass(frozen=True)
class Origin:
    """Where values stop being finite. `microbatch` counts from 0; for weights it is -1."""

    where: Literal["weight", "forward", "loss", "backward", "gradient"]
    name: str  # of the module, or of the parameter
    microbatch: int = -1
    count: int = 0  # values that are not finite
    of: int = 0
    largest: float = 0.0  # of the finite values that went in: an overflow shows here
    row: int = -1  # of the first bad value, where the tensor has rows of tokens
    token: int = -1

    def __str__(self) -> str:
        what = {
            "weight": f"the weights themselves are not finite: {self.name}",
            "forward": f"forward: {self.name or 'the model'} makes what is not finite of what is",
            "loss": "forward: the loss is not finite, and every module's values are",
            "backward": f"backward: {self.name or 'the model'} makes gradients that are not finite of those that are",
            "gradient": f"backward: the gradient of {self.name} is not finite, and every module's values are",
        }[self.where]
        parts = [what]
        if self.of:
            parts.append(f"{self.count:,} of {self.of:,} values")
        if self.microbatch >= 0:
            parts.append(f"microbatch {self.microbatch}")
        if self.row >= 0:
            parts.append(f"first at row {self.row}, token {self.token}")
        if self.where in ("forward", "backward"):
            parts.append(f"the largest value that went in is {self.largest:.3g}")
        return ", ".join(parts)


def first_not_finite(model: nn.Module, objective: Objective, batches: Sequence[Batch]) -> Origin | None:
    """The first origin over the weights and then all microbatches; None if everything is finite."""
    for name, param in model.named_parameters():
        if not bool(torch.isfinite(param).all()):
            return _bad(param, Origin("weight", name))
    for number, batch in enumerate(batches):
        found = _of_microbatch(model, objective, batch.to(device_of(model)), number)
        model.zero_grad(set_to_none=True)
        if found is not None:
            return found
    return None


def _of_microbatch(model: nn.Module, objective: Objective, batch: Batch, number: int) -> Origin | None:
    found: list[Origin] = []
    with _asked(model, found):
        terms = objective.terms(model, batch)
        if not found and not math.isfinite(float(terms.total.detach())):
            found.append(Origin("loss", "", number))
        if not found:
            terms.total.backward()  # type: ignore[no-untyped-call]
    if found:
        return Origin(**{**vars(found[0]), "microbatch": number})
    for name, param in model.named_parameters():
        if param.grad is not None and not bool(torch.isfinite(param.grad).all()):
            return _bad(param.grad, Origin("gradient", name, number))
    return None


@contextmanager
def _asked(model: nn.Module, found: list[Origin]) -> Iterator[None]:
    """Ask every module whether it makes of finite values some that are not; the first answer counts."""
    handles = []

    def forward(name: str) -> Any:
        def look(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            if not found:
                _ask("forward", name, _tensors(given), _tensors((made,)), found)

        return look

    def backward(name: str) -> Any:
        def look(module: nn.Module, made: Any, given: Any) -> None:
            own = [param.grad for param in module.parameters(recurse=False) if param.grad is not None]
            if not found:
                _ask("backward", name, _tensors(given), [*_tensors(made), *own], found)

        return look

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(forward(name)))
        handles.append(module.register_full_backward_hook(backward(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ask(
    where: Literal["forward", "backward"], name: str, given: list[Tensor], made: list[Tensor], found: list[Origin]
) -> None:
    bad = next((one for one in made if not bool(torch.isfinite(one).all())), None)
    if bad is None or any(not bool(torch.isfinite(one).all()) for one in given):
        return
    largest = max((float(one.abs().max()) for one in given if one.numel()), default=0.0)
    found.append(_bad(bad, Origin(where, name, largest=largest)))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [one.detach() for one in values if isinstance(one, Tensor) and one.is_floating_point()]


def _bad(values: Tensor, origin: Origin) -> Origin:
    """How many values are not finite, and the first of them in a tensor [B, T, ...]."""
    wrong = ~torch.isfinite(values.detach())
    facts = {"count": int(wrong.sum()), "of": values.numel()}
    if values.ndim >= 3 and origin.where in ("forward", "backward"):
        row, token = wrong.nonzero()[0][:2].tolist()
        facts |= {"row": row, "token": token}
    return Origin(**{**vars(origin), **facts})
