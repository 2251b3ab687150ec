"""The elementwise hot paths of the network as custom autograd functions: RMSNorm, SwiGLU, rotary positions.

Plain autograd keeps every intermediate and walks memory once per operation; on a CPU that costs as much as the
matrix products. Each function here saves only its inputs and has its plain twin in `reference.py`; what norms and
SwiGLU give is made again for the products that need it, where that is asked for (`remade.py`).
Not here: anything that needs a compiler (`kernels/` will hold those).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from herd.llama.remade import remade


class _RMSNorm(torch.autograd.Function):
    """y = weight * cast(x / rms(x)), the mean of squares in fp32 (fp64 for fp64 input)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        rstd = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return _normed(x, rstd).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        normed = _normed(x, rstd)
        grad_weight = (grad * normed).flatten(0, -2).sum(0, dtype=rstd.dtype).to(weight.dtype)
        # d/dx of x * rstd(x): the part along x itself is taken out, since scaling a row does not change its norm
        scaled = (grad * weight).to(rstd.dtype)
        along = (scaled * normed).sum(-1, keepdim=True).div_(x.shape[-1])
        grad_x = scaled.addcmul_(normed.to(rstd.dtype), along, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_weight, None


def _normed(x: Tensor, rstd: Tensor) -> Tensor:
    return x * rstd if x.dtype == rstd.dtype else (x * rstd).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., D] over its root mean square, times weight [D]; same dtype as x."""
    return remade(_RMSNorm.apply, x, weight, eps)


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up, saving the two inputs only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, F.silu(gate).mul_(grad)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, all of one shape."""
    return remade(_SwiGLU.apply, gate, up)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors  # type: ignore[attr-defined]
        return _turn(grad, cos, sin, -1.0), None, None  # the transpose of a rotation turns back


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # torch 2.13 mixes up the memory of two `out=` into halves in one graph
        return torch.cat([first * cos - sign * second * sin, second * cos + sign * first * sin], -1)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin, value=sign)
    return out


def rotate(x_BTHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of every head; cos and sin broadcast as [..., T, 1, K/2] in x's dtype."""
    out: Tensor = _Rotate.apply(x_BTHK, cos, sin)  # type: ignore[no-untyped-call]
    return out
