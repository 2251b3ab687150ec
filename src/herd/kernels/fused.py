"""What stands between the products of a pass, each in one walk over memory: norms, SwiGLU, rotary positions.

    normed = rms_norm(x, weight, eps)
    x, normed = add_rms_norm(x, y, weight, eps)                       # x + y in the place of x, and its norm
    mixed = swiglu(gate, up)
    q_NHK = rotate_into(q_NHK, k_NGK, v_NGK, cos, sin, pages, planned)     # keys and values go into their pages

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

_NORM, _SWIGLU, _ROTATE = range(3)  # `enum elementwise_kind` in csrc/pass.h


class _Elementwise(ctypes.Structure):
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
    _check(x, weight=weight)
    out = torch.empty_like(x)
    call = _Elementwise(x=x.data_ptr(), weight=weight.data_ptr(), out=out.data_ptr(), eps=eps)
    return _run(_NORM, call, x, out)


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, which takes x's place, and its `rms_norm`."""
    x, y = _rows(x), _rows(y)
    _check(x, y, weight=weight)
    out = torch.empty_like(x)
    call = _Elementwise(
        x=x.data_ptr(),
        y=y.data_ptr(),
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        sum=x.data_ptr(),
        y_stride=x.shape[-1],
        eps=eps,
    )
    return x, _run(_NORM, call, x, out)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, all of one shape; it takes gate's place: fresh memory costs more than the work."""
    gate, up = _rows(gate), _rows(up)
    _check(gate, up)
    call = _Elementwise(x=gate.data_ptr(), y=up.data_ptr(), out=gate.data_ptr(), y_stride=gate.shape[-1])
    return _run(_SWIGLU, call, gate, gate)


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
    n_tokens, heads, size = q_NHK.shape
    n_pages, groups, page, _ = pages.keys.shape
    if not (
        k_NGK.shape == v_NGK.shape == (n_tokens, groups, size)
        and cos.shape == sin.shape == (n_tokens, size // 2)
        and len({x.dtype for x in (q_NHK, k_NGK, v_NGK, cos, sin)}) == 1
        and pages.keys.shape[-1] == size
        and planned.n_tokens == n_tokens
        and planned.n_pages <= n_pages
    ):
        raise ValueError(f"queries {tuple(q_NHK.shape)} do not fit keys {tuple(k_NGK.shape)} or their pages")
    call = _Elementwise(
        x=q_NHK.data_ptr(),
        y=k_NGK.data_ptr(),
        weight=v_NGK.data_ptr(),
        cos=cos.data_ptr(),
        sin=sin.data_ptr(),
        out=q_NHK.data_ptr(),
        keys=pages.keys.data_ptr(),
        values=pages.values.data_ptr(),
        key_scale=pages.key_scale.data_ptr() if pages.key_scale is not None else None,
        value_scale=pages.value_scale.data_ptr() if pages.value_scale is not None else None,
        places=planned.places_N.ctypes.data,
        y_stride=k_NGK.stride(0),
        weight_stride=v_NGK.stride(0),
        heads=heads,
        groups=groups,
        page=page,
        cache_type=TYPES[pages.keys.dtype],
    )
    return _run(_ROTATE, call, q_NHK, q_NHK)


def _rows(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.contiguous()


def _check(x: Tensor, y: Tensor | None = None, *, weight: Tensor | None = None) -> None:
    """The library trusts these sizes."""
    fits = x.dtype in TYPES and (y is None or (y.shape == x.shape and y.dtype == x.dtype))
    if not fits or (weight is not None and (weight.shape != x.shape[-1:] or weight.dtype != x.dtype)):
        others = [(tuple(other.shape), other.dtype) for other in (y, weight) if other is not None]
        raise ValueError(f"{tuple(x.shape)} in {x.dtype} and {others} do not belong together")


def _run(kind: int, call: _Elementwise, x: Tensor, out: Tensor) -> Tensor:
    found = kernels()
    assert found is not None, "the library is not there: ask `attention.usable` first"
    call.width, call.type = x.shape[-1], TYPES[x.dtype]
    call.x_stride = x.shape[-1] if kind != _ROTATE else x.stride(0)
    rows = x.shape[0] if kind == _ROTATE else x.numel() // max(1, x.shape[-1])
    if rows:
        found.library.herd_elementwise(found.level, found.threads, kind, ctypes.c_int64(rows), ctypes.byref(call))
    return out
