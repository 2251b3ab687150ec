"""Cross-entropy for training as an autograd function: logits become their own gradient, a stretch of rows at a time.

    total = cross_entropy(hidden_ND, weight_VD, targets_N, weights_N)

Gradients come in the pass that makes the loss. Every stretch walks once over the weight and over its gradient, which is
summed in float32: short stretches stay in a cache, but over a large vocabulary those walks are what takes the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from herd.kernels import training_products
from herd.kernels.training import LOSS, run

BYTES = 1 << 22  # of logits that are alive at a time, so that they stay in a cache; but
ROWS = 1024  # of them at least, and of very large vocabularies
MOST_BYTES = 1 << 27  # at most


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        n_rows, vocabulary = len(hidden_ND), len(weight_VD)
        grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
        chunk = _rows_at_once(vocabulary * hidden_ND.element_size())
        grad_weight = _no_gradient(weight_VD, n_rows <= chunk) if wants_weight else None
        losses_N3 = torch.empty(n_rows, 3)
        logits_CV = hidden_ND.new_empty(min(chunk, n_rows), vocabulary)
        for start in range(0, n_rows, chunk):
            span = slice(start, start + chunk)
            hidden_CD = hidden_ND[span]
            logits_CV = logits_CV[: len(hidden_CD)]
            _multiply(logits_CV, hidden_CD, weight_VD.t())
            run(
                *(LOSS, len(logits_CV), vocabulary, logits_CV.dtype),
                out=logits_CV,
                sums=losses_N3[span],
                targets=targets_N[span],
                scale=weights_N[span],
            )
            if grad_hidden is not None:
                _multiply(grad_hidden[span], logits_CV, weight_VD)
            if grad_weight is not None:
                _multiply(grad_weight, logits_CV.t(), hidden_CD, add=start > 0)
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


def _rows_at_once(row_bytes: int) -> int:
    return max(64, BYTES // row_bytes, min(ROWS, MOST_BYTES // row_bytes))


def _no_gradient(weight_VD: Tensor, whole: bool) -> Tensor:
    """Room for the weight's gradient: in float32 where it is a sum of several products; of none it is zero."""
    return torch.zeros(weight_VD.shape, dtype=weight_VD.dtype if whole else torch.float32)


def _multiply(out: Tensor, a: Tensor, b: Tensor, add: bool = False) -> None:
    """out = or += a @ b: on matrix tiles what torch does without them, float32 and sums in it."""
    if torch.float32 in (out.dtype, a.dtype) and training_products.multiplies(a, b):
        training_products.product(out, [(a, b)], add)
    elif out.dtype == a.dtype:
        torch.addmm(out, a, b, beta=int(add), out=out)
    elif add:
        out += a @ b
    else:
        out.copy_(a @ b)


def cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """The sum over tokens of weight * -log p(target): a scalar, float32. ValueError for targets that are no ids."""
    if len(targets_N) and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < len(weight_VD):
        raise ValueError(f"targets go from {int(targets_N.min())} to {int(targets_N.max())}")  # C trusts them
    hidden_ND, targets_N, weights_N = hidden_ND.contiguous(), targets_N.contiguous(), weights_N.float().contiguous()
    found: Tensor = _CrossEntropy.apply(hidden_ND, weight_VD, targets_N, weights_N)  # type: ignore[no-untyped-call]
    return found
