"""Attention for training on the CPU, in blocks of queries, with its own backward pass: packed documents, short rows.

torch's CPU kernel knows documents only as a mask over the full square, and fills up to 512 keys of that square even
where causality hides them. Here a block of queries meets the keys from the start of its first document up to its own
end: large products that stay in the processor's cache, little work beyond a document. The softmax of short rows is kept
for the backward pass; that of long rows is made again, so memory never grows with the square of the length. At 8 rows
of 512 tokens, 8 heads of 32 and documents of about 100 tokens, forward and backward take 0.55 of the CPU time of the
masked kernel (softmax not kept); of one document a row, 0.8 of the causal kernel's (kept).
Not for GPUs, nor for decoding over a cache, nor for inference, where torch's kernel is as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 64  # queries: larger blocks waste work on keys of other documents, smaller ones calls
ROWS = 2  # of one document each that share their products: half the calls, still within the cache
KEEP_BYTES = 64 << 20  # of softmax in one layer: 8 rows of 512 tokens with 8 heads take 38 MB in float32


@dataclass(frozen=True)
class Span:
    """Queries [start, stop) of some rows, which look at keys [first_key, stop) under a bias of 0 and -inf."""

    rows: slice
    start: int
    stop: int
    first_key: int
    bias: Tensor  # added to the scores of the last bias.shape[1] keys
    offset: int = 0  # places before the first given query, where not all queries of a row are given

    @property
    def queries(self) -> slice:
        return slice(self.start - self.offset, self.stop - self.offset)

    @property
    def keys(self) -> slice:
        return slice(self.first_key, self.stop)


def plan_documents(starts_BT: Tensor, like: Tensor, chunks: Sequence[range] = ()) -> list[Span]:
    """Spans of packed rows; `starts_BT` says at which index the document of each token begins.

    `chunks` are the places whose queries are given, one chunk after the other; without them all are.
    """
    length = starts_BT.shape[1]
    triangle = _triangle(min(BLOCK, length), like)
    blocks, given = [], 0
    for chunk in chunks or [range(length)]:
        blocks += [(chunk.start + a, chunk.start + b, chunk.start - given) for a, b in _blocks(len(chunk))]
        given += len(chunk)
    spans = []
    for row, starts in enumerate(starts_BT.tolist()):
        for start, stop, offset in blocks:
            bias = triangle[: stop - start, : stop - start]
            if starts[stop - 1] > starts[start]:  # a document begins inside the block
                keys = torch.arange(starts[start], stop, device=like.device)
                before = keys < starts_BT[row, start:stop, None]
                later = keys > torch.arange(start, stop, device=like.device)[:, None]
                bias = torch.zeros_like(before, dtype=like.dtype).masked_fill_(before | later, -math.inf)
            spans.append(Span(slice(row, row + 1), start, stop, starts[start], bias, offset))
    return spans


def plan_causal(batch: int, length: int, heads: int, like: Tensor) -> list[Span] | None:
    """Spans of rows of one document each; None where the softmax is too large to keep and torch's kernel is better."""
    triangle = _triangle(min(BLOCK, length), like)
    spans = [
        Span(slice(row, min(row + ROWS, batch)), start, stop, 0, triangle[: stop - start, : stop - start])
        for row in range(0, batch, ROWS)
        for start, stop in _blocks(length)
    ]
    return spans if _softmax_bytes(spans, heads, like.dtype) <= KEEP_BYTES else None


def _softmax_bytes(spans: list[Span], heads: int, dtype: torch.dtype) -> int:
    squares = 0
    for span in spans:
        rows: int = span.rows.stop - span.rows.start
        squares += rows * (span.stop - span.start) * (span.stop - span.first_key)
    return squares * heads * dtype.itemsize


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _triangle(size: int, like: Tensor) -> Tensor:
    return torch.full((size, size), -math.inf, dtype=like.dtype, device=like.device).triu_(1)


class _BlockedAttention(torch.autograd.Function):
    """Shapes inside a span: M = rows * G groups, Q = (H/G) * queries, S keys."""

    @staticmethod
    def forward(ctx: Any, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, spans: list[Span]) -> Tensor:
        groups = k_BTGK.shape[2]
        q_BTHK = q_BTHK * (q_BTHK.shape[-1] ** -0.5)  # scale the queries once rather than the scores
        k_BGTK, v_BGTK = k_BTGK.transpose(1, 2).contiguous(), v_BTGK.transpose(1, 2).contiguous()
        out_BTHK = torch.empty_like(q_BTHK)
        keep = any(ctx.needs_input_grad) and _softmax_bytes(spans, q_BTHK.shape[2], q_BTHK.dtype) <= KEEP_BYTES
        kept = []
        for span in spans:
            q_MQK = _take(q_BTHK, span, groups)
            weights_MQS = _weights(q_MQK, _keys(k_BGTK, span), span)
            _put(out_BTHK, torch.bmm(weights_MQS, _keys(v_BGTK, span)), span, groups)
            if keep:
                kept.append(weights_MQS)
        ctx.save_for_backward(q_BTHK, k_BTGK, v_BTGK, *kept)  # not the copies: these may be made again (remade.py)
        ctx.spans = spans
        return out_BTHK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTHK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_BTHK, k_BTGK, v_BTGK, *kept = ctx.saved_tensors
        groups = k_BTGK.shape[2]
        k_BGTK, v_BGTK = k_BTGK.transpose(1, 2).contiguous(), v_BTGK.transpose(1, 2).contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q_BTHK), torch.zeros_like(k_BGTK), torch.zeros_like(v_BGTK)
        for number, span in enumerate(ctx.spans):
            q_MQK, out_MQK = _take(q_BTHK, span, groups), _take(grad_BTHK, span, groups)
            k_MSK, v_MSK = _keys(k_BGTK, span), _keys(v_BGTK, span)
            weights_MQS = kept[number] if kept else _weights(q_MQK, k_MSK, span)
            # A product, then a sum: into a slice, baddbmm_ would run matrix by matrix, which two threads cannot share.
            _keys(grad_v, span).add_(torch.bmm(weights_MQS.transpose(1, 2), out_MQK))
            grad_MQS = torch.bmm(out_MQK, v_MSK.transpose(1, 2))
            grad_MQS = torch._softmax_backward_data(grad_MQS, weights_MQS, -1, weights_MQS.dtype)
            _put(grad_q, torch.bmm(grad_MQS, k_MSK), span, groups)
            _keys(grad_k, span).add_(torch.bmm(grad_MQS.transpose(1, 2), q_MQK))
        grad_q.mul_(q_BTHK.shape[-1] ** -0.5)
        return grad_q, grad_k.transpose(1, 2), grad_v.transpose(1, 2), None


def _grouped(x_BTHK: Tensor, span: Span, groups: int) -> Tensor:
    """The span's queries as a view [R rows, G groups, H/G heads, T queries, K]."""
    x_RTHK = x_BTHK[span.rows, span.queries]
    rows, length, heads, size = x_RTHK.shape
    return x_RTHK.view(rows, length, groups, heads // groups, size).permute(0, 2, 3, 1, 4)


def _take(x_BTHK: Tensor, span: Span, groups: int) -> Tensor:
    """A copy of the span's queries with the heads of a group one after the other: [M, Q, K]."""
    x_RGHTK = _grouped(x_BTHK, span, groups)
    return x_RGHTK.reshape(x_RGHTK.shape[0] * groups, -1, x_BTHK.shape[-1])


def _put(x_BTHK: Tensor, part_MQK: Tensor, span: Span, groups: int) -> None:
    target_RGHTK = _grouped(x_BTHK, span, groups)
    target_RGHTK.copy_(part_MQK.view(target_RGHTK.shape))


def _keys(x_BGTK: Tensor, span: Span) -> Tensor:
    return x_BGTK[span.rows].flatten(0, 1)[:, span.keys]


def _weights(q_MQK: Tensor, k_MSK: Tensor, span: Span) -> Tensor:
    scores_MQS = torch.bmm(q_MQK, k_MSK.transpose(1, 2))
    length, width = span.bias.shape
    scores_MQS.view(len(q_MQK), -1, length, k_MSK.shape[1])[..., -width:] += span.bias
    return torch.softmax(scores_MQS, dim=-1)


def blocked_attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, spans: list[Span]) -> Tensor:
    """softmax(q k / sqrt(K)) v under the spans' bias; [B, T, H, K]. The spans must cover every query once."""
    out: Tensor = _BlockedAttention.apply(q_BTHK, k_BTGK, v_BTGK, spans)  # type: ignore[no-untyped-call]
    return out
