"""What stands between the products of a pass, each in one walk over memory: norms, SwiGLU, rotary positions.

    normed = rms_norm(x, weight, eps)
    x, normed = add_rms_norm(x, y, weight, eps)                       # x + y in the place of x, and its norm
    mixed = swiglu(gate, up)
    q_NHK = rotate_into(q_NHK, k_NGK, v_NGK, cos, sin, pages, planned)     # keys and values go into their pages
    top_N, total_N, likeliest_N = summary(logits_NV)                  # what sampling asks of a row of logits

They round where the plain modules of `llama/` do (in bfloat16: the normed row before the weight, silu before the
product, each half of a rotation), so they differ from those by the last bit of a square root, a sum or an exponential.
Rows are independent and their sums have an order of their own. Where `attention.usable` holds, these can run, too.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from herd.kernels.attention import TYPES, PageTensors
from herd.kernels.attention_plan import Plan
from herd.kernels.library import kernels

NORM, SWIGLU, ROTATE, SUMMARY = range(4)  # `enum elementwise_kind` in csrc/pass.h


class Elementwise(ctypes.Structure):
    """`elementwise` of csrc/pass.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y", "weight", "cos", "sin", "out", "sum")),
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scale", "value_scale", "places")),
        *((name, ctypes.c_int64) for name in ("width", "x_stride", "y_stride", "weight_stride")),
        *((name, ctypes.c_int64) for name in ("heads", "groups", "page")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("type", "cache_type")),
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., D] over its root mean square, times weight [D]."""
    x = _rows(x)
    out = torch.empty_like(x)
    run(NORM, norm_call(x, None, weight, eps, out), x)
    return out


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, which takes x's place, and its `rms_norm`."""
    x, y = _rows(x), _rows(y)
    out = torch.empty_like(x)
    run(NORM, norm_call(x, y, weight, eps, out), x)
    return x, out


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, all of one shape; it takes gate's place: fresh memory costs more than the work."""
    gate, up = _rows(gate), _rows(up)
    run(SWIGLU, swiglu_call(gate, up), gate)
    return gate


def rotate_into(
    q_NHK: Tensor,
    k_NGK: Tensor,
    v_NGK: Tensor,
    cos: Tensor,
    sin: Tensor,
    pages: PageTensors,
    planned: Plan,
) -> Tensor:
    """Rotated queries, in the place of q; rotated keys, and values, go to their places in the pages, in their dtype.

    cos, sin [N, K / 2] in q's dtype; element i of a head turns with i + K / 2.
    """
    q_NHK, k_NGK, v_NGK, cos, sin = (x.contiguous() for x in (q_NHK, k_NGK, v_NGK, cos, sin))
    call = rotate_call(q_NHK, k_NGK, v_NGK, pages)
    check_angles(cos, sin, q_NHK, pages, planned)
    call.cos, call.sin, call.places = cos.data_ptr(), sin.data_ptr(), planned.places_N.ctypes.data
    run(ROTATE, call, q_NHK)
    return q_NHK


def summary(logits_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row its largest logit, the sum of exp(logit - largest), and the lowest id [N] of the largest, int64.

    The sum is NaN where a logit is NaN or plus infinity, or all are minus infinity. logits_NV: float32, V under 2^31.
    """
    if logits_NV.dtype != torch.float32 or logits_NV.dim() != 2 or not 0 < logits_NV.shape[1] < 2**31:
        raise ValueError(f"logits are {logits_NV.dtype} {tuple(logits_NV.shape)}, not rows of float32")
    logits_NV = _rows(logits_NV)
    out_N3 = torch.empty(len(logits_NV), 3)
    width = logits_NV.shape[1]
    run(SUMMARY, Elementwise(x=logits_NV.data_ptr(), out=out_N3.data_ptr(), width=width, x_stride=width), logits_NV)
    return out_N3[:, 0], out_N3[:, 1], out_N3.view(torch.int32)[:, 2].long()


def norm_call(x: Tensor, y: Tensor | None, weight: Tensor, eps: float, out: Tensor) -> Elementwise:
    """What the library is told of `rms_norm` or, with y, `add_rms_norm`; tensors lie without gaps."""
    _check(x, out, y, weight=weight)
    return Elementwise(
        x=x.data_ptr(),
        y=None if y is None else y.data_ptr(),
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        sum=None if y is None else x.data_ptr(),
        width=x.shape[-1],
        x_stride=x.shape[-1],
        y_stride=x.shape[-1],
        eps=eps,
        type=TYPES[x.dtype],
    )


def swiglu_call(gate: Tensor, up: Tensor) -> Elementwise:
    """What the library is told of `swiglu`; tensors lie without gaps."""
    _check(gate, up)
    width = gate.shape[-1]
    return Elementwise(
        x=gate.data_ptr(),
        y=up.data_ptr(),
        out=gate.data_ptr(),
        width=width,
        x_stride=width,
        y_stride=width,
        type=TYPES[gate.dtype],
    )


def rotate_call(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: PageTensors) -> Elementwise:
    """What the library is told of `rotate_into` but for angles and places; tensors lie without gaps."""
    n_tokens, heads, size = q_NHK.shape
    _, groups, page, _ = pages.keys.shape
    if not (
        k_NGK.shape == v_NGK.shape == (n_tokens, groups, size)
        and q_NHK.dtype == k_NGK.dtype == v_NGK.dtype
        and pages.keys.shape[-1] == size
    ):
        raise ValueError(f"queries {tuple(q_NHK.shape)} do not fit keys {tuple(k_NGK.shape)} or their pages")
    return Elementwise(
        x=q_NHK.data_ptr(),
        y=k_NGK.data_ptr(),
        weight=v_NGK.data_ptr(),
        out=q_NHK.data_ptr(),
        keys=pages.keys.data_ptr(),
        values=pages.values.data_ptr(),
        key_scale=pages.key_scale.data_ptr() if pages.key_scale is not None else None,
        value_scale=pages.value_scale.data_ptr() if pages.value_scale is not None else None,
        width=size,
        x_stride=heads * size,
        y_stride=groups * size,
        weight_stride=groups * size,
        heads=heads,
        groups=groups,
        page=page,
        type=TYPES[q_NHK.dtype],
        cache_type=TYPES[pages.keys.dtype],
    )


def check_angles(cos: Tensor, sin: Tensor, q_NHK: Tensor, pages: PageTensors, planned: Plan) -> None:
    """The library trusts these sizes."""
    n_tokens, _, size = q_NHK.shape
    fits = cos.shape == sin.shape == (n_tokens, size // 2) and cos.dtype == sin.dtype == q_NHK.dtype
    if not fits or planned.n_tokens != n_tokens or planned.n_pages > len(pages.keys):
        raise ValueError(f"queries {tuple(q_NHK.shape)} do not fit angles {tuple(cos.shape)} or the plan")


def _rows(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous()


def _check(x: Tensor, *others: Tensor | None, weight: Tensor | None = None) -> None:
    """The library trusts these sizes."""
    fits = x.dtype in TYPES and all(y is None or (y.shape == x.shape and y.dtype == x.dtype) for y in others)
    if not fits or (weight is not None and (weight.shape != x.shape[-1:] or weight.dtype != x.dtype)):
        beside = [(tuple(other.shape), other.dtype) for other in (*others, weight) if other is not None]
        raise ValueError(f"{tuple(x.shape)} in {x.dtype} and {beside} do not belong together")


def run(kind: int, call: Elementwise, x: Tensor) -> None:
    """`call` on the rows of x, whose sizes somebody has checked."""
    found = kernels()
    assert found is not None, "the library is not there: ask `attention.usable` first"
    rows = x.shape[0] if kind == ROTATE else x.numel() // max(1, x.shape[-1])
    if rows:
        found.library.herd_elementwise(found.level, found.threads, kind, ctypes.c_int64(rows), ctypes.byref(call))
