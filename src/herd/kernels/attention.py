"""Attention of the queries of a pass over keys and values in pages, on the CPU.

    planned = plan(sequences, page=16, per_group=4)            # once a pass
    mixed_NHK = paged_attention(q_NHK, cache, planned)         # once a layer

Softmax is fp32 and online: keys come in blocks of 64 positions, in order, folded together every 1,024. The result of a
query depends on its own sequence up to its position and on nothing else: not on the other queries, on how a prompt was
cut, on pages that are shared, or on the number of threads. Scores are sums in fp32; on AMX (bfloat16 queries) weights
are rounded to bfloat16 before they meet the values, elsewhere they stay fp32.
The compiled library does it where `usable` says so; who has other devices or types asks torch (`generate/`).
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from herd.kernels.attention_plan import BLOCK, Plan
from herd.kernels.library import kernels

E4M3 = torch.float8_e4m3fn
TYPES = {torch.float32: 0, torch.bfloat16: 1, E4M3: 2}  # `enum number` in csrc/pass.h
MOST_SIZE = 256  # of a head


class PageTensors(NamedTuple):
    """Keys and values of one layer, [pages, G, page, K]; of e4m3 a scale [pages, G, page] for each."""

    keys: Tensor
    values: Tensor
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None


class Attention(ctypes.Structure):
    """`attention` of csrc/pass.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "keys", "values", "key_scale", "value_scale", "out")),
        *((name, ctypes.c_void_p) for name in ("positions", "tables", "blocks", "segments")),
        *((name, ctypes.c_int64) for name in ("q_stride", "n_blocks", "heads", "groups", "size", "page")),
        *((name, ctypes.c_int32) for name in ("q_type", "cache_type")),
    )


def usable(device: torch.device, dtype: torch.dtype, cache_dtype: torch.dtype, size: int) -> bool:
    """Whether the compiled library can do the passes of a model: `size` is that of a head."""
    types = dtype in (torch.float32, torch.bfloat16) and cache_dtype in (dtype, E4M3)
    return device.type == "cpu" and types and size <= MOST_SIZE and kernels() is not None


def paged_attention(q_NHK: Tensor, pages: PageTensors, planned: Plan) -> Tensor:
    """softmax(q k / sqrt(K)) v over the positions up to each query's own, [N, H, K] in q's dtype."""
    found = kernels()
    assert found is not None, "the library is not there: ask `usable` first"
    check(q_NHK, pages, planned)
    q_NHK = q_NHK if q_NHK[0].is_contiguous() else q_NHK.contiguous()
    out_NHK = torch.empty(q_NHK.shape, dtype=q_NHK.dtype)
    call = attention_call(q_NHK, pages, out_NHK)
    arrays = (planned.positions_N, planned.tables, planned.blocks, planned.segments)
    call.positions, call.tables, call.blocks, call.segments = (array.ctypes.data for array in arrays)
    call.n_blocks = len(planned.blocks)
    if found.library.herd_attention(found.level, found.threads, ctypes.byref(call)):
        raise MemoryError(f"no memory for the attention of {len(q_NHK)} tokens")
    return out_NHK


def attention_call(q_NHK: Tensor, pages: PageTensors, out_NHK: Tensor) -> Attention:
    """What the library is told of `paged_attention` but for the plan; each token of q and out lies without gaps."""
    _, heads, size = q_NHK.shape
    _, groups, page, _ = pages.keys.shape
    return Attention(
        q=q_NHK.data_ptr(),
        keys=pages.keys.data_ptr(),
        values=pages.values.data_ptr(),
        key_scale=pages.key_scale.data_ptr() if pages.key_scale is not None else None,
        value_scale=pages.value_scale.data_ptr() if pages.value_scale is not None else None,
        out=out_NHK.data_ptr(),
        q_stride=q_NHK.stride(0),
        heads=heads,
        groups=groups,
        size=size,
        page=page,
        q_type=TYPES[q_NHK.dtype],
        cache_type=TYPES[pages.keys.dtype],
    )


def check(q_NHK: Tensor, pages: PageTensors, planned: Plan) -> None:
    """The library trusts these sizes, and wrong ones would read foreign memory."""
    check_pages(q_NHK, pages)
    if planned.n_tokens != len(q_NHK) or planned.n_pages > len(pages.keys):
        raise ValueError("the plan is of another pass")


def check_pages(q_NHK: Tensor, pages: PageTensors) -> None:
    """What of `check` no plan is needed for."""
    _, heads, size = q_NHK.shape
    n_pages, groups, page, _ = pages.keys.shape
    fits = heads % groups == 0 and pages.keys.shape == pages.values.shape == (n_pages, groups, page, size)
    if not fits or size > MOST_SIZE or BLOCK % page:
        raise ValueError(f"queries {tuple(q_NHK.shape)} do not fit pages {tuple(pages.keys.shape)}")
    scales = (pages.key_scale, pages.value_scale)
    if pages.keys.dtype == E4M3 and any(s is None or s.shape != pages.keys.shape[:3] for s in scales):
        raise ValueError("pages in e4m3 need a float32 scale for every position and head of keys and values")
    if not all(x is None or x.is_contiguous() for x in pages) or not usable(
        q_NHK.device, q_NHK.dtype, pages.keys.dtype, size
    ):
        raise ValueError(f"queries in {q_NHK.dtype}, pages in {pages.keys.dtype} on {q_NHK.device}")
