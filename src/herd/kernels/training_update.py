"""The end of a training step on the CPU: the gradients' norm, and AdamW, in one walk over memory each.

    if updates(weights): total = squares(gradients)
        adamw([Updated(weight, gradient, first, second, copy, kept, step, root), ...], scale, betas, eps)

The formula is that of torch's AdamW (Loshchilov and Hutter 2019); its naive form is torch's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from herd.kernels.library import kernels
from herd.kernels.training import TYPES

PORTION = 1 << 14  # numbers whose squares are summed together: PORTION in csrc/train_update.h


@dataclass(frozen=True)
class Updated:
    """A weight, what AdamW keeps of it, and this step's gradient; `copy` follows the weight in bfloat16."""

    weight: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    copy: Tensor | None
    kept: float  # of the weight: 1 - rate * decay
    step: float  # rate / (1 - beta1^t)
    root: float  # 1 / sqrt(1 - beta2^t)


class _Tensor(ctypes.Structure):
    """`updated` of csrc/train_update.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "weight", "first", "second", "copy")),
        ("count", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("kept", "step", "root")),
        ("type", ctypes.c_int32),
    )


class _Update(ctypes.Structure):
    """`update` of csrc/train_update.h."""

    _fields_ = (
        ("tensors", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("squares", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("scale", "beta1", "beta2", "eps")),
    )


def updates(tensors: Iterable[Tensor], *dtypes: torch.dtype) -> bool:
    """Whether the library takes these: plain tensors of the dtypes, each in one piece in main memory."""
    return kernels() is not None and all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype in (dtypes or (torch.float32,))
        and x.is_contiguous()
        for x in tensors
    )


def squares(gradients: Sequence[Tensor]) -> float:
    """The sum of the squares of all numbers, each portion summed in float32, all of them in float64."""
    portions = sum(-(-x.numel() // PORTION) for x in gradients)
    sums = torch.zeros(portions, dtype=torch.float64)
    _run([_Tensor(grad=x.data_ptr(), count=x.numel(), type=TYPES[x.dtype]) for x in gradients], squares=sums.data_ptr())
    return float(sums.sum())


def adamw(tensors: Sequence[Updated], scale: float, betas: tuple[float, float], eps: float) -> None:
    """One update in place; gradients count `scale` times."""
    beta1, beta2 = betas
    _run([_told(each) for each in tensors], scale=scale, beta1=beta1, beta2=beta2, eps=eps)


def _told(each: Updated) -> _Tensor:
    return _Tensor(
        grad=each.gradient.data_ptr(),
        weight=each.weight.data_ptr(),
        first=each.first.data_ptr(),
        second=each.second.data_ptr(),
        copy=None if each.copy is None else each.copy.data_ptr(),
        count=each.weight.numel(),
        kept=each.kept,
        step=each.step,
        root=each.root,
        type=TYPES[each.gradient.dtype],
    )


def _run(tensors: list[_Tensor], **fields: float) -> None:
    found = kernels()
    assert found is not None, "the library is not there: ask `updates` first"
    there = (_Tensor * len(tensors))(*tensors)
    call = _Update(tensors=ctypes.addressof(there), count=len(tensors), **fields)
    found.library.herd_train_update(found.level, found.threads, ctypes.byref(call))
