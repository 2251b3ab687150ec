"""Matrix products of training on the processor's matrix tiles, summed in float32.

    if multiplies(x): product(out, [(a, b), (c, d)])            # out = a @ b + c @ d, transposed views welcome
    gate, up = linears(x, (gate_weight, up_weight))             # x W^T of each, with gradients

Tiles multiply bfloat16. A float32 is the sum of three of them, and six products of two carry all of its 24 bits (Henry
et al. 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations"): errors are
those of float32 sums, up to twice torch's, whose sums are rounded a third as often. What is infinite becomes NaN.
Results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from herd.kernels.library import kernels
from herd.kernels.training import TYPES, usable


class _Part(ctypes.Structure):
    """`train_part` of csrc/train_product.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b")),
        *((name, ctypes.c_int64) for name in ("k", "a_row", "a_step", "b_row", "b_step")),
    )


class _Product(ctypes.Structure):
    """`train_product` of csrc/train_product.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("parts", "c")),
        *((name, ctypes.c_int64) for name in ("count", "m", "n", "c_row")),
        *((name, ctypes.c_int32) for name in ("type", "c_type", "add")),
    )


def multiplies(*tensors: Tensor) -> bool:
    """Whether `product` takes these: of one dtype that it knows, on a processor with matrix tiles."""
    found = kernels()
    if found is None or not usable(*tensors):
        return False
    return bool(found.library.herd_train_product_able(found.level, TYPES[tensors[0].dtype]))


def product(out: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], add: bool = False) -> Tensor:
    """out [M, N] = the sum of a [M, K] @ b [K, N] over pairs; `add`: to what a float32 `out` holds.

    Rows or columns of each lie beside one another. ValueError for what does not fit; MemoryError.
    """
    found = kernels()
    assert found is not None, "the library is not there: ask `multiplies` first"
    dtype = pairs[0][0].dtype
    if not _fits(out, pairs) or out.dtype not in (dtype, torch.float32) or (add and out.dtype != torch.float32):
        shapes = ", ".join(f"{tuple(a.shape)} @ {tuple(b.shape)}" for a, b in pairs)
        raise ValueError(f"{shapes} of {dtype} do not give {tuple(out.shape)} of {out.dtype}")
    if not out.numel():
        return out
    parts = (_Part * len(pairs))(
        *(_Part(a.data_ptr(), b.data_ptr(), a.shape[1], *a.stride(), *b.stride()) for a, b in pairs)
    )
    call = _Product(
        parts=ctypes.addressof(parts),
        c=out.data_ptr(),
        count=len(pairs),
        m=out.shape[0],
        n=out.shape[1],
        c_row=out.stride(0),
        type=TYPES[dtype],
        c_type=TYPES[out.dtype],
        add=int(add),
    )
    if found.library.herd_train_product(found.threads, ctypes.byref(call)):
        raise MemoryError("no memory for a product of a training step")
    return out


def _fits(out: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    alike = all(
        a.dtype == b.dtype == pairs[0][0].dtype
        and (a.shape[0], a.shape[1], b.shape[1]) == (out.shape[0], b.shape[0], out.shape[1])
        and a.shape[1] > 0
        and 1 in a.stride()
        and 1 in b.stride()
        for a, b in pairs
    )
    return alike and out.stride(1) == 1


class _Linears(torch.autograd.Function):
    """In bfloat16 torch's products are faster where operands lie as they come, and one of two is not to be summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        if x.dtype == torch.bfloat16:
            return tuple(x @ w_MK.t() for w_MK in weights)
        x_NK = x.reshape(-1, x.shape[-1])
        outs = (product(x.new_empty(len(x_NK), len(w_MK)), [(x_NK, w_MK.t())]) for w_MK in weights)
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        x_NK = x.reshape(-1, x.shape[-1])
        grads_NM = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        grad_x = None
        if ctx.needs_input_grad[0] and x.dtype == torch.bfloat16 and len(weights) == 1:
            grad_x = (grads_NM[0] @ weights[0]).view(x.shape)
        elif ctx.needs_input_grad[0]:
            pairs = list(zip(grads_NM, weights, strict=True))
            grad_x = product(torch.empty_like(x_NK), pairs).view(x.shape)
        grads_MK = [
            product(torch.empty_like(w), [(g.t(), x_NK)]) if wanted else None
            for g, w, wanted in zip(grads_NM, weights, ctx.needs_input_grad[1:], strict=True)
        ]
        return grad_x, *grads_MK


def linears(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """x [..., K] W^T for each W [M, K]; their gradients by x are summed before they are rounded."""
    found: tuple[Tensor, ...] = _Linears.apply(x, *(weight.contiguous() for weight in weights))  # type: ignore[no-untyped-call]
    return found
