"""Cross-entropy and log-probabilities over a large vocabulary, a chunk of rows at a time.

All logits of one 8B microbatch (8,192 tokens by 128,256 ids, fp32) are 4.2 GB, and their gradient as much again. Here
never more than `chunk` rows are alive, forward or backward: cross-entropy makes the gradients of hidden states and
weight in the same pass as the loss; log-probabilities, whose upstream gradient is not known yet, are recomputed.

Another kind of weight can bring its own way to both, by torch's protocol for functions (`__torch_function__`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function_unary

from herd.errors import InputError

CHUNK = 256  # rows; at a vocabulary of 4,096 their fp32 logits are 4 MB and stay in a CPU's cache
GPU_CHUNK = 1024  # fp32 logits of the released vocabulary: 525 MB; each chunk walks once over the weight's gradient


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor | None, chunk: int
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden_ND) if wants_hidden else None
        grad_weight = _wide_zeros(weight_VD) if wants_weight else None
        total = torch.zeros((), dtype=_wide(hidden_ND.dtype), device=hidden_ND.device)
        for start in range(0, hidden_ND.shape[0], chunk):
            span = slice(start, start + chunk)
            hidden_CD, targets_C = hidden_ND[span], targets_N[span]
            scale_C1 = None if weights_N is None else weights_N[span, None].to(total.dtype)
            logprobs_CV = _log_softmax(hidden_CD, weight_VD)
            losses_C1 = -logprobs_CV.gather(1, targets_C[:, None])
            total += (losses_C1 if scale_C1 is None else losses_C1 * scale_C1).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            grad_CV = _softmax_minus_target(logprobs_CV, targets_C).to(weight_VD.dtype)
            if grad_hidden is not None:
                part = grad_CV @ weight_VD
                grad_hidden[span] = part if scale_C1 is None else part * scale_C1
            if grad_weight is not None:
                weighted_CD = hidden_CD if scale_C1 is None else (hidden_CD * scale_C1).to(hidden_CD.dtype)
                _add_product(grad_weight, grad_CV, weighted_CD)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else (grad_hidden * grad).to(hidden_dtype),
            None if grad_weight is None else (grad_weight * grad).to(weight_dtype),
            None,
            None,
            None,
        )


def chunked_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    chunk: int | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """The sum over tokens of weight * -log p(target): a scalar, fp32; never a mean.

    Differentiable in `hidden_ND` and `weight_VD`. Rows of weight zero cost nothing and may have any target. `counted`
    are the indices of the other rows, for a caller who knows them: to find them here makes a GPU wait.
    """
    if has_torch_function_unary(weight_VD):
        given = (hidden_ND, weight_VD, targets_N, weights_N, chunk, counted)
        brought: Tensor = handle_torch_function(chunked_cross_entropy, (weight_VD,), *given)
        return brought
    chunk = chunk_rows(chunk, hidden_ND)
    _check(hidden_ND, weight_VD, targets_N, chunk)
    if weights_N is not None:
        if counted is None:
            counted = weights_N.nonzero().squeeze(1)
        if counted.numel() < weights_N.numel():
            hidden_ND, targets_N, weights_N = hidden_ND[counted], targets_N[counted], weights_N[counted]
    total: Tensor = _CrossEntropy.apply(hidden_ND, weight_VD, targets_N, weights_N, chunk)  # type: ignore[no-untyped-call]
    return total


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_NJ: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(hidden_ND, weight_VD, targets_NJ)
        ctx.chunk = chunk
        found = [
            _log_softmax(hidden_ND[start : start + chunk], weight_VD).gather(1, targets_NJ[start : start + chunk])
            for start in range(0, max(1, hidden_ND.shape[0]), chunk)  # no rows give an empty answer
        ]
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NJ: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_ND, weight_VD, targets_NJ = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight = _wide_zeros(weight_VD) if wants_weight else None
        for start in range(0, hidden_ND.shape[0], ctx.chunk):
            span = slice(start, start + ctx.chunk)
            grad_CJ = grad_NJ[span]
            grad_CV = _log_softmax(hidden_ND[span], weight_VD).exp_().mul_(-grad_CJ.sum(1, keepdim=True))
            grad_CV = grad_CV.scatter_add_(1, targets_NJ[span], grad_CJ).to(weight_VD.dtype)
            if grad_hidden is not None:
                grad_hidden[span] = grad_CV @ weight_VD
            if grad_weight is not None:
                _add_product(grad_weight, grad_CV, hidden_ND[span])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype), None, None


def token_logprobs(hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """log p(target) for each row, fp32, in the shape of `targets`: [N], or [N, J] for J candidates a row.

    Differentiable in `hidden_ND` and `weight_VD` with any upstream gradient; the backward pass computes logits again.
    """
    if has_torch_function_unary(weight_VD):
        brought: Tensor = handle_torch_function(token_logprobs, (weight_VD,), hidden_ND, weight_VD, targets, chunk)
        return brought
    chunk = chunk_rows(chunk, hidden_ND)
    _check(hidden_ND, weight_VD, targets, chunk)
    targets_NJ = targets if targets.dim() == 2 else targets[:, None]
    found: Tensor = _TokenLogprobs.apply(hidden_ND, weight_VD, targets_NJ, chunk)  # type: ignore[no-untyped-call]
    return found.view(targets.shape)


def chunk_rows(asked: int | None, hidden_ND: Tensor) -> int:
    """Rows of logits alive at once, where nothing is asked for."""
    if asked is not None:
        return asked
    return CHUNK if hidden_ND.device.type == "cpu" else GPU_CHUNK


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _wide_zeros(weight_VD: Tensor) -> Tensor:
    return torch.zeros(weight_VD.shape, dtype=_wide(weight_VD.dtype), device=weight_VD.device)


def _log_softmax(hidden_CD: Tensor, weight_VD: Tensor) -> Tensor:
    return torch.log_softmax(hidden_CD @ weight_VD.t(), dim=-1, dtype=_wide(hidden_CD.dtype))


def _softmax_minus_target(logprobs_CV: Tensor, targets_C: Tensor) -> Tensor:
    """The gradient of -log p(target) by the logits, made in place of the log-probabilities."""
    probabilities_CV = logprobs_CV.exp_()
    probabilities_CV.scatter_add_(1, targets_C[:, None], torch.full_like(probabilities_CV[:, :1], -1.0))
    return probabilities_CV


def _add_product(total_VD: Tensor, grad_CV: Tensor, hidden_CD: Tensor) -> None:
    """total += grad^T hidden, the sum over chunks in fp32 whatever the dtype of the product."""
    if grad_CV.dtype == total_VD.dtype:
        total_VD.addmm_(grad_CV.t(), hidden_CD)
    else:
        total_VD += grad_CV.t() @ hidden_CD


def _check(hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, chunk: int) -> None:
    if chunk < 1:
        raise InputError(f"a chunk of {chunk} rows", where="chunk", mend="give a chunk of at least one row")
    if hidden_ND.dim() != 2 or hidden_ND.shape[1] != weight_VD.shape[1] or len(targets) != len(hidden_ND):
        raise InputError(
            f"hidden {tuple(hidden_ND.shape)}, weight {tuple(weight_VD.shape)} and targets {tuple(targets.shape)} "
            "do not belong together",
            where="loss",
            mend="flatten hidden states to [N, D] and targets to [N]",
        )
