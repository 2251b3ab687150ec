"""Causal attention of packed documents for training, forward and backward, as an autograd function.

    if attends(q_BTHK): out_BTHK = attention(q_BTHK, k_BTGK, v_BTGK, starts_BT)

In float32 everywhere, in bfloat16 where the processor has matrix tiles. Scores are kept for 32 queries at a time; the
backward pass makes them again from the logarithm of each query's sum. A head of keys is one task, whose sums run in one
order: nothing depends on the number of threads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from herd.kernels.library import kernels
from herd.kernels.training import TYPES

LONGEST = 8192  # tokens of a row: the scores of 32 queries by all keys should stay in a cache


class _Attention(ctypes.Structure):
    """`train_attention` of csrc/train.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "starts", "out", "lse", "grad")),
        *((name, ctypes.c_void_p) for name in ("grad_q", "grad_k", "grad_v")),
        *((name, ctypes.c_int64) for name in ("rows", "length", "heads", "groups", "size")),
        ("type", ctypes.c_int32),
    )


def attends(q_BTHK: Tensor) -> bool:
    """Whether `attention` takes these queries: heads of whole steps of 32; in bfloat16 only with matrix tiles."""
    found = kernels()
    _, length, _, size = q_BTHK.shape
    if found is None or size % 32 or size > 256 or not 0 < length <= LONGEST:
        return False
    return bool(found.library.herd_train_attention_able(found.level, TYPES[q_BTHK.dtype]))


class _AttentionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, starts_BT: Tensor) -> Tensor:
        q_BTHK, k_BTGK, v_BTGK = q_BTHK.contiguous(), k_BTGK.contiguous(), v_BTGK.contiguous()
        out, (batch, length, heads, _) = torch.empty_like(q_BTHK), q_BTHK.shape
        lse_BHT = torch.empty(batch, heads, length)
        _attend(q_BTHK, k_BTGK, backward=False, v=v_BTGK, starts=starts_BT, out=out, lse=lse_BHT)
        ctx.save_for_backward(q_BTHK, k_BTGK, v_BTGK, starts_BT, out, lse_BHT)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, starts, out, lse = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        named = dict(zip(("grad_q", "grad_k", "grad_v"), grads, strict=True))
        _attend(q, k, backward=True, v=v, starts=starts, out=out, lse=lse, grad=grad.contiguous(), **named)
        return *grads, None


def _attend(q_BTHK: Tensor, k_BTGK: Tensor, backward: bool, **tensors: Tensor) -> None:
    found = kernels()
    assert found is not None, "the library is not there: ask `attends` first"
    batch, length, heads, size = q_BTHK.shape
    told = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    call = _Attention(
        q=q_BTHK.data_ptr(),
        k=k_BTGK.data_ptr(),
        rows=batch,
        length=length,
        heads=heads,
        groups=k_BTGK.shape[2],
        size=size,
        type=TYPES[q_BTHK.dtype],
        **told,
    )
    if found.library.herd_train_attention(found.level, found.threads, int(backward), ctypes.byref(call)):
        raise MemoryError("no memory for the attention of a training step")


def attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, starts_BT: Tensor) -> Tensor:
    """softmax(q k / sqrt(K)) v of each head; query t of a row looks at keys starts_BT[.., t] (int32) .. t."""
    batch, length, heads, size = q_BTHK.shape
    groups = k_BTGK.shape[2]
    alike = q_BTHK.dtype == k_BTGK.dtype == v_BTGK.dtype
    if not (
        k_BTGK.shape == v_BTGK.shape == (batch, length, groups, size)
        and starts_BT.shape == (batch, length)
        and starts_BT.dtype == torch.int32
        and starts_BT.is_contiguous()
        and heads % groups == 0
        and alike
    ):
        raise ValueError(f"queries {tuple(q_BTHK.shape)} do not fit keys {tuple(k_BTGK.shape)} or their documents")
    out: Tensor = _AttentionFunction.apply(q_BTHK, k_BTGK, v_BTGK, starts_BT)  # type: ignore[no-untyped-call]
    return out
