"""What training does between its products, forward and backward, each in one walk over memory, as autograd functions.

    normed = rms_norm(x, weight, eps)                    mixed = swiglu(gate, up)
    q_BTHK = rotate(q_BTHK, cos, sin)

In float32 and bfloat16 on the CPU, where `usable` holds; sums are float32. Attention is in `training_attention.py`.
Forward they round where the plain functions of `llama/` round; gradients are rounded once. Sums over rows run in an
order that does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from herd.kernels import fused
from herd.kernels.library import kernels

TYPES = {torch.float32: 0, torch.bfloat16: 1}  # `enum number` in csrc/pass.h
NORM_BACKWARD, SWIGLU_BACKWARD, TURN, LOSS = range(4)  # `enum training_kind` in csrc/train.h
CHUNK = 64  # rows whose gradients of a norm's weight are summed together: CHUNK in csrc/train.h


class _Training(ctypes.Structure):
    """`training` of csrc/train.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y", "grad", "weight", "cos", "sin", "out", "other")),
        *((name, ctypes.c_void_p) for name in ("sums", "targets", "scale")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "period")),
        *((name, ctypes.c_float) for name in ("eps", "sign")),
        ("type", ctypes.c_int32),
    )


def usable(*tensors: Tensor) -> bool:
    """Whether the library takes these: plain tensors of one dtype that it knows, in main memory."""
    if torch.compiler.is_compiling():
        return False
    first = tensors[0]
    plain = all(type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" for x in tensors)
    alike = plain and first.dtype in TYPES and all(x.dtype == first.dtype for x in tensors)
    return alike and kernels() is not None


def run(kind: int, rows: int, width: int, dtype: torch.dtype, **fields: Any) -> None:
    found = kernels()
    assert found is not None, "the library is not there: ask `usable` first"
    told = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in fields.items()}
    call = _Training(width=width, type=TYPES[dtype], **told)
    if rows:
        found.library.herd_training(found.level, found.threads, kind, ctypes.c_int64(rows), ctypes.byref(call))


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return fused.rms_norm(x, weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        width = x.shape[-1]
        rows = x.numel() // width
        grad, found = grad.contiguous(), torch.empty_like(x)
        sums = torch.empty(-(-rows // CHUNK), width)
        run(NORM_BACKWARD, rows, width, x.dtype, x=x, grad=grad, weight=weight, out=found, sums=sums, eps=ctx.eps)
        return found, sums.sum(0).to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., D] over its root mean square, times weight [D]."""
    out: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        out, call = torch.empty_like(gate), fused.swiglu_call(gate, up)
        call.out = out.data_ptr()  # not in gate's place: the backward pass wants it
        fused.run(fused.SWIGLU, call, gate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        width = gate.shape[-1]
        grad, grad_gate, grad_up = grad.contiguous(), torch.empty_like(gate), torch.empty_like(up)
        rows = gate.numel() // width
        run(SWIGLU_BACKWARD, rows, width, gate.dtype, x=gate, y=up, grad=grad, out=grad_gate, other=grad_up)
        return grad_gate, grad_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, all of one shape."""
    out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x_BTHK, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1.0), None, None  # the transpose of a rotation turns back


def _turn(x_BTHK: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    x_BTHK = x_BTHK.contiguous()
    out, (batch, length, heads, size) = torch.empty_like(x_BTHK), x_BTHK.shape
    period = cos.numel() // (size // 2)
    run(
        TURN,
        batch * length,
        size,
        x_BTHK.dtype,
        x=x_BTHK,
        cos=cos,
        sin=sin,
        out=out,
        heads=heads,
        period=period,
        sign=sign,
    )
    return out


def rotate(x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (i, i + K/2) of every head turned by its angle; cos and sin [B or 1, T, 1, K/2] in float32."""
    out: Tensor = _Rotate.apply(x_BTHK, cos.contiguous(), sin.contiguous())  # type: ignore[no-untyped-call]
    return out
