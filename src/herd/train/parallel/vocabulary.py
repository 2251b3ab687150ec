"""A vocabulary cut among ranks: embedding, logits, cross-entropy and log-probabilities over all of its parts.

A rank has the rows [first, first + V') of the embedding or output matrix as a `VocabularyShard`, which stands where the
whole matrix would: torch's protocol for functions (`__torch_function__`) finds here what is to be done instead, so
objectives and the network need not know. Never more than a chunk of rows of this rank's logits is alive; ranks tell
each other one number a row and target (their log-sum-exp and the logits that they have).

Losses are the same on every rank. A rank's gradient of the hidden states is a summand of the sum over the group, for
its own part of the vocabulary, of a loss of which each rank takes a share (tensor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from herd.llama.loss import chunk_rows, chunked_cross_entropy, token_logprobs
from herd.train.parallel.collectives import gathered


@dataclass(frozen=True)
class VocabularyShard:
    """Rows [first, first + V') of a matrix [V, D]."""

    local: Tensor
    first: int
    rows: int  # V, of all ranks
    group: dist.ProcessGroup

    @staticmethod
    def of(weight: DTensor) -> VocabularyShard:
        """This rank's part of a matrix that is cut by rows."""
        mesh, rows = weight.device_mesh, weight.shape[0]
        first = min(mesh.get_local_rank() * -(-rows // mesh.size()), rows)
        return VocabularyShard(weight.to_local(), first, rows, mesh.get_group())

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        instead = _INSTEAD.get(function)
        if instead is None:
            return NotImplemented
        return instead(*args, **(kwargs or {}))

    def own(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Where the ids stand in this part (0 for others'), and which are in it."""
        here = (ids >= self.first) & (ids < self.first + len(self.local))
        return torch.where(here, ids - self.first, 0), here


def _embedding(tokens_BT: Tensor, shard: VocabularyShard, *_: Any, **__: Any) -> Tensor:
    """A summand of the embedding: zero for the tokens of other ranks."""
    places_BT, here_BT = shard.own(tokens_BT)
    return F.embedding(places_BT, shard.local) * here_BT[..., None]


def _linear(hidden: Tensor, shard: VocabularyShard, bias: None = None) -> Tensor:
    """Logits of the whole vocabulary on every rank; without gradient."""
    most = -(-shard.rows // shard.size)
    own = (hidden @ shard.local.t()).detach()
    all_ranks = gathered(F.pad(own, (0, most - own.shape[-1])).flatten(0, -2), shard.group)
    return all_ranks.movedim(0, -2).flatten(-2)[..., : shard.rows].view(*hidden.shape[:-1], shard.rows)


def _seen(hidden_CD: Tensor, shard: VocabularyShard, targets_CJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's logits [C, V'], and of the whole vocabulary the log-sum-exp [C, 1] and log p(target) [C, J]."""
    wide = torch.promote_types(hidden_CD.dtype, torch.float32)
    logits_CV = (hidden_CD @ shard.local.t()).to(wide)
    places_CJ, here_CJ = shard.own(targets_CJ)
    found_CJ = logits_CV.gather(1, places_CJ) * here_CJ
    both_RC = gathered(torch.cat([logits_CV.logsumexp(1, keepdim=True), found_CJ], 1), shard.group)
    total_C1 = both_RC[:, :, :1].logsumexp(0)
    return logits_CV, total_C1, both_RC[:, :, 1:].sum(0) - total_C1


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        local: Tensor,
        shard: VocabularyShard,
        targets_N1: Tensor,
        weights_N1: Tensor,
        chunk: int,
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        wide = weights_N1.dtype
        grad_hidden = torch.zeros_like(hidden_ND) if wants_hidden else None
        grad_weight = torch.zeros_like(local, dtype=wide) if wants_weight else None
        total = torch.zeros((), dtype=wide, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), chunk):
            span = slice(start, start + chunk)
            logits_CV, sum_C1, found_C1 = _seen(hidden_ND[span], shard, targets_N1[span])
            total -= (found_C1 * weights_N1[span]).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            grad_CV = _less_targets(logits_CV.sub_(sum_C1).exp_(), shard, targets_N1[span], torch.ones_like(found_C1))
            grad_CV = grad_CV.mul_(weights_N1[span]).to(local.dtype)
            if grad_hidden is not None:
                grad_hidden[span] = grad_CV @ local
            if grad_weight is not None:
                grad_weight += grad_CV.t() @ hidden_ND[span]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.size, ctx.dtype = shard.size, local.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        grad = share * ctx.size  # of all ranks together
        return (
            None if grad_hidden is None else (grad_hidden * grad).to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(ctx.dtype),
            *(None, None, None, None),
        )


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, local: Tensor, shard: VocabularyShard, targets_NJ: Tensor, chunk: int
    ) -> Tensor:
        sums, found = [], []
        for start in range(0, max(1, len(hidden_ND)), chunk):
            span = slice(start, start + chunk)
            _, sum_C1, found_CJ = _seen(hidden_ND[span], shard, targets_NJ[span])
            sums.append(sum_C1)
            found.append(found_CJ)
        ctx.save_for_backward(hidden_ND, local, targets_NJ, torch.cat(sums))
        ctx.shard, ctx.chunk = shard, chunk
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, share_NJ: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_ND, local, targets_NJ, sum_N1 = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_ND)
        grad_weight = torch.zeros_like(local, dtype=sum_N1.dtype)
        for start in range(0, len(hidden_ND), ctx.chunk):
            span = slice(start, start + ctx.chunk)
            grad_CJ = share_NJ[span] * ctx.shard.size
            grad_CV = ((hidden_ND[span] @ local.t()).to(sum_N1.dtype) - sum_N1[span]).exp_()
            grad_CV = grad_CV.mul_(-grad_CJ.sum(1, keepdim=True))
            grad_CV = _less_targets(grad_CV, ctx.shard, targets_NJ[span], -grad_CJ).to(local.dtype)
            grad_hidden[span] = grad_CV @ local
            grad_weight += grad_CV.t() @ hidden_ND[span]
        return grad_hidden, grad_weight.to(local.dtype), None, None, None


def _less_targets(values_CV: Tensor, shard: VocabularyShard, targets_CJ: Tensor, amount_CJ: Tensor) -> Tensor:
    """values - amount at the targets that this rank has, in place."""
    places_CJ, here_CJ = shard.own(targets_CJ)
    return values_CV.scatter_add_(1, places_CJ, -(amount_CJ * here_CJ).to(values_CV.dtype))


def _cross_entropy(
    hidden_ND: Tensor,
    shard: VocabularyShard,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    chunk: int | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    weights_N = torch.ones(len(targets_N), device=hidden_ND.device) if weights_N is None else weights_N
    counted = weights_N.nonzero().squeeze(1) if counted is None else counted
    hidden_ND, targets_N, weights_N = hidden_ND[counted], targets_N[counted], weights_N[counted].to(wide)
    rows = chunk_rows(chunk, hidden_ND)
    total: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, shard.local, shard, targets_N[:, None], weights_N[:, None], rows
    )
    return total


def _logprobs(hidden_ND: Tensor, shard: VocabularyShard, targets: Tensor, chunk: int | None = None) -> Tensor:
    targets_NJ = targets if targets.dim() == 2 else targets[:, None]
    rows = chunk_rows(chunk, hidden_ND)
    found: Tensor = _TokenLogprobs.apply(hidden_ND, shard.local, shard, targets_NJ, rows)  # type: ignore[no-untyped-call]
    return found.view(targets.shape)


_INSTEAD: dict[Any, Callable[..., Tensor]] = {
    F.embedding: _embedding,
    F.linear: _linear,
    chunked_cross_entropy: _cross_entropy,
    token_logprobs: _logprobs,
}
