"""What training does between its products, forward and backward, each in one walk over memory, as autograd functions.

    normed = rms_norm(x, weight, eps)                    mixed = swiglu(gate, up)
    q_BTHK = rotate(q_BTHK, cos, sin)
    total = cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)

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
LOSS_BYTES = 1 << 22  # of logits that are alive at a time: they stay in a cache


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


def _run(kind: int, rows: int, width: int, dtype: torch.dtype, **fields: Any) -> None:
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
        _run(NORM_BACKWARD, rows, width, x.dtype, x=x, grad=grad, weight=weight, out=found, sums=sums, eps=ctx.eps)
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
        _run(SWIGLU_BACKWARD, rows, width, gate.dtype, x=gate, y=up, grad=grad, out=grad_gate, other=grad_up)
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
    _run(
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


class _CrossEntropy(torch.autograd.Function):
    """Gradients come in the pass that makes the loss: logits become their own gradient, a stretch of rows at a time."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        n_rows, vocabulary = len(hidden_ND), len(weight_VD)
        grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight = torch.zeros(weight_VD.shape) if wants_weight else None
        losses_N3 = torch.empty(n_rows, 3)
        chunk = max(64, LOSS_BYTES // (vocabulary * hidden_ND.element_size()))
        for start in range(0, n_rows, chunk):
            span = slice(start, start + chunk)
            logits_CV = hidden_ND[span] @ weight_VD.t()
            _run(
                *(LOSS, len(logits_CV), vocabulary, logits_CV.dtype),
                out=logits_CV,
                sums=losses_N3[span],
                targets=targets_N[span],
                scale=weights_N[span],
            )
            if grad_hidden is not None:
                torch.mm(logits_CV, weight_VD, out=grad_hidden[span])
            if grad_weight is not None and logits_CV.dtype == torch.float32:
                grad_weight.addmm_(logits_CV.t(), hidden_ND[span])
            elif grad_weight is not None:
                grad_weight += logits_CV.t() @ hidden_ND[span]
        top_N, sum_N, target_N = losses_N3.unbind(1)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight_VD.dtype
        return ((top_N - target_N + sum_N.log()) * weights_N).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None and grad != 1:
            grad_hidden = (grad_hidden * grad).to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad if grad != 1 else grad_weight).to(ctx.dtype)
        return grad_hidden, grad_weight, None, None


def cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """The sum over tokens of weight * -log p(target): a scalar, float32. ValueError for targets that are no ids."""
    if len(targets_N) and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < len(weight_VD):
        raise ValueError(f"targets go from {int(targets_N.min())} to {int(targets_N.max())}")  # C trusts them
    hidden_ND, targets_N, weights_N = hidden_ND.contiguous(), targets_N.contiguous(), weights_N.float().contiguous()
    found: Tensor = _CrossEntropy.apply(hidden_ND, weight_VD, targets_N, weights_N)  # type: ignore[no-untyped-call]
    return found
