"""Context parallelism: every rank of a group holds a part of each row's tokens, and looks at the keys of all.

A row of T tokens is cut into 2*CP chunks, and rank i holds chunks i and 2*CP-1-i: one early and one late, so that all
ranks meet equally many keys under the causal mask. Before attention the keys and values of all ranks are gathered
(paper, section 3.3.2: not passed around in a ring, since document masks are then as simple as on one device, and since
keys are few where query heads share them). Their gradients come back by a reduce-scatter, summed in float32.

    parallelise_context(model, group)                # in place; parameters and their names stay
    part = share_context(batch, group.index, group.count)
    objective.terms(model, part)                     # sums over this rank's tokens

What counts pairs needs whole rows: `parallelise_context(model, group, whole_rows=True)` takes a whole batch, computes
on this rank's part and gathers the hidden states, so that every rank computes the same terms; `rows.OneShare` divides
them among the ranks. In both cases a parameter's gradient is the sum over the group.

A row whose length is no multiple of the chunks is padded on the right with tokens of weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn.attention.bias import causal_lower_right

from herd.errors import InputError
from herd.llama.attention import Attention, Layout, attend, bias_of, for_all_heads
from herd.llama.blocked import plan_documents
from herd.llama.cache import KVCache
from herd.llama.model import Llama
from herd.llama.remade import noted, remade
from herd.llama.rope import document_starts
from herd.train.parallel.collectives import gathered, scattered_sum
from herd.train.parallel.rows import chunks_of, padded, padded_documents, padded_length, part


@dataclass(frozen=True)
class ContextGroup:
    """The processes that share rows. `multiple`: chunk lengths divide by it (tensor ranks cut the tokens further)."""

    processes: dist.ProcessGroup
    multiple: int = 1

    @property
    def index(self) -> int:
        return dist.get_rank(self.processes)

    @property
    def count(self) -> int:
        return dist.get_world_size(self.processes)

    def share_of(self, length: int) -> int:
        """Tokens of a row of `length` that each rank holds, padding included."""
        return padded_length(length, self.count, self.multiple) // self.count

    def __deepcopy__(self, memo: dict[int, Any]) -> ContextGroup:
        return self  # a copy of a model is on the same processes


def _whole(own: Tensor, group: ContextGroup) -> Tensor:
    # [CP, B, 2, C, ...]: the early chunks lie in the order of the ranks, the late ones the other way round
    halves = gathered(own, group.processes).view(group.count, len(own), 2, own.shape[1] // 2, *own.shape[2:])
    return torch.cat([halves[:, :, 0], halves[:, :, 1].flip(0)]).transpose(0, 1).flatten(1, 2)


class _Gather(torch.autograd.Function):
    """[B, T/CP, ...] of every rank -> [B, T, ...] in the order of the row; backwards, the sum of this rank's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: ContextGroup) -> Tensor:
        ctx.group = group
        return _whole(own, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        group: ContextGroup = ctx.group
        chunks = grad.reshape(len(grad), 2 * group.count, -1, *grad.shape[2:]).transpose(0, 1)
        halves = torch.stack([chunks[: group.count], chunks[group.count :].flip(0)], 2).flatten(2, 3)
        wide = torch.promote_types(grad.dtype, torch.float32)
        return scattered_sum(halves.to(wide), group.processes).to(grad.dtype), None


def gather_context(part_BTD: Tensor, group: ContextGroup) -> Tensor:
    """What every rank holds of the rows, [B, T/CP, ...], in full order: [B, T, ...]. Differentiable.

    Within `making_again` it is kept as this rank's part, and gathered once more backwards.
    """
    whole: Tensor = _Gather.apply(part_BTD, group)  # type: ignore[no-untyped-call]
    return noted(whole, _whole, part_BTD, group)


@dataclass(frozen=True)
class _Chunk:
    """Where the queries of a chunk stand among this rank's, how many of the row's keys they meet and which they see."""

    queries: slice
    keys: int
    mask: Tensor


@dataclass(frozen=True)
class _PartLayout(Layout):
    """A layout of this rank's tokens. `spans` (on the CPU) or `chunks` (elsewhere) place them in the whole row."""

    chunks: tuple[_Chunk, ...] = ()


class _GatheredKeys(Attention):
    """Attention of this rank's queries over the keys of the whole row."""

    context: ContextGroup

    def mix(self, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, layout: Layout) -> Tensor:
        assert isinstance(layout, _PartLayout)
        both_BS2GK = gather_context(torch.stack([k_BTGK, v_BTGK], 2), self.context)  # one collective for both
        if layout.chunks:
            both_BS2GK = for_all_heads(both_BS2GK, q_BTHK.shape[2])
        k_BSGK, v_BSGK = both_BS2GK.unbind(2)
        if not layout.chunks:
            return attend(q_BTHK, k_BSGK, v_BSGK, layout)
        mixed = [
            attend(
                q_BTHK[:, chunk.queries],
                k_BSGK[:, : chunk.keys],
                v_BSGK[:, : chunk.keys],
                replace(layout, mask=chunk.mask),
            )
            for chunk in layout.chunks
        ]
        return remade(_joined, *mixed)


def _joined(*parts_BTHK: Tensor) -> Tensor:
    return torch.cat(parts_BTHK, 1)


class _PartOfRows(Llama):
    """A network that is given this rank's tokens, or whole rows of which it computes this rank's tokens."""

    context: ContextGroup
    whole_rows: bool

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        if not self.whole_rows:
            return super().forward(tokens_BT, positions_BT=positions_BT, document_ids_BT=document_ids_BT, cache=cache)
        length = tokens_BT.shape[1]
        whole = padded_length(length, self.context.count, self.context.multiple)
        chunks = chunks_of(self.context.index, self.context.count, whole)
        part_BTD = super().forward(
            part(padded(tokens_BT, whole), chunks),
            positions_BT=None if positions_BT is None else part(padded(positions_BT, whole), chunks),
            document_ids_BT=None if document_ids_BT is None else padded_documents(document_ids_BT, whole),
            cache=cache,
        )
        if self.model._modules.get("norm") is None:  # a stage of a pipeline that hands its part on to the next one
            return part_BTD
        return gather_context(part_BTD, self.context)[:, :length]

    def _layout(
        self, x_BTD: Tensor, positions_BT: Tensor | None, document_ids_BT: Tensor | None, cache: KVCache | None
    ) -> Layout:
        if cache is not None:
            raise InputError("a cache holds whole rows, and this rank has a part of them", where="cache")
        # Not the length of x: tensor ranks may hold a part of this rank's tokens there.
        given = x_BTD.shape[1] if positions_BT is None else positions_BT.shape[1]
        length = given * self.context.count
        chunks = chunks_of(self.context.index, self.context.count, length)
        starts_BT = torch.zeros(x_BTD.shape[0], length, dtype=torch.int64, device=x_BTD.device)
        if document_ids_BT is not None:
            if document_ids_BT.shape[1] != length:
                message = f"{document_ids_BT.shape[1]} documents' ids for rows of {length} tokens"
                raise InputError(message, where="document_ids_BT", mend="cut the batch with share_context")
            starts_BT = document_starts(document_ids_BT)
        if positions_BT is None:
            positions_BT = part(torch.arange(length, device=x_BTD.device) - starts_BT, chunks)
        cos, sin = self._rotation(positions_BT, x_BTD.dtype)
        if x_BTD.device.type == "cpu":
            return _PartLayout(cos, sin, spans=plan_documents(starts_BT, x_BTD, chunks))
        starts = None if document_ids_BT is None else starts_BT
        return _PartLayout(cos, sin, chunks=masked_chunks(chunks, starts, x_BTD.dtype))


def masked_chunks(
    chunks: Sequence[range], starts_BT: Tensor | None, dtype: torch.dtype = torch.float32
) -> tuple[_Chunk, ...]:
    """Chunks of queries for torch's GPU kernels, each with the keys up to its end; None: one document a row."""
    found, given = [], 0
    for chunk in chunks:
        if starts_BT is None:
            mask: Tensor = causal_lower_right(len(chunk), chunk.stop)  # no mask is made of it
        else:
            keys_S = torch.arange(chunk.stop, device=starts_BT.device)
            own_C = keys_S[chunk.start :, None]
            seen_BCS = (keys_S >= starts_BT[:, chunk.start : chunk.stop, None]) & (keys_S <= own_C)
            mask = bias_of(seen_BCS[:, None], dtype)
        found.append(_Chunk(slice(given, given + len(chunk)), chunk.stop, mask))
        given += len(chunk)
    return tuple(found)


def parallelise_context(model: Llama, group: ContextGroup, whole_rows: bool = False) -> None:
    """Make a built network compute this rank's part of every row, in place.

    `whole_rows` false: it takes parts (`share_context`) and gives their hidden states. True: it takes and gives whole
    rows. Kinds of modules are put before the modules' own classes, as FSDP2 does: what hangs on a module stays.
    """
    become(model, _PartOfRows)
    model.whole_rows, model.context = whole_rows, group  # type: ignore[assignment]
    for module in model.modules():
        if isinstance(module, Attention):
            become(module, _GatheredKeys)
            module.context = group  # type: ignore[assignment]


def become(module: nn.Module, kind: type[nn.Module]) -> None:
    """Put a kind of module before the module's own class, in place: what hangs on the module stays."""
    own = type(module)
    if not isinstance(module, kind):
        module.__class__ = type(f"{kind.__name__.lstrip('_')}{own.__name__}", (kind, own), {})
