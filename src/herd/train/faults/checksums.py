"""Flipped bits in weights: found by sums of their words, which any one flipped bit changes.

Two questions. Do ranks that hold a tensor alike still hold it alike (an update that went wrong on one of them)? And
is what this rank holds now what its last update left (memory that changed by itself)? The first needs replicas: of
plain data parallelism every tensor, of tensor parallelism the norms. The second names a rank without any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate

from herd.train.parallel.collectives import gathered
from herd.train.parallel.data import local

_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def words_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor's memory, read as integers of eight bytes, what is left of its elements' size; modulo 2^64.

    torch adds eight bytes a hundred times as fast as it widens four (CPU), and to detach a DTensor takes longer than to
    add up a small one.
    """
    own = local(tensor).detach().contiguous().view(-1)
    each = own.element_size()
    if own.storage_offset() * each % 8:  # eight bytes must begin at eight bytes, on every rank
        own = own.clone()
    paired = own.numel() * each // 8 * 8 // each
    total = own[:paired].view(torch.int64).sum()
    if paired < own.numel():
        total += own[paired:].view(_WORDS[each]).sum(dtype=torch.int64)
    return total


@dataclass(frozen=True)
class Replicas:
    """Tensors that the ranks of a group hold alike, by name, in the same order on each."""

    group: dist.ProcessGroup
    names: tuple[str, ...]


def replicas(
    tensors: Mapping[str, Tensor], whole_on: dist.ProcessGroup | None, tp: dist.ProcessGroup
) -> list[Replicas]:
    """Who else holds what. `whole_on`: ranks that have all parameters whole (no FSDP), if there are such."""
    found = []
    if whole_on is not None and dist.get_world_size(whole_on) > 1:
        found.append(Replicas(whole_on, tuple(tensors)))
    if dist.get_world_size(tp) > 1:
        found.append(Replicas(tp, tuple(name for name, tensor in tensors.items() if _is_whole(tensor))))
    return [one for one in found if one.names]


def _is_whole(tensor: Tensor) -> bool:
    """Whether tensor ranks, the last dimension of a parameter's mesh, hold it alike."""
    return isinstance(tensor, DTensor) and isinstance(tensor.placements[-1], Replicate)


@dataclass(frozen=True)
class Differs:
    """A tensor that ranks should hold alike and do not; `ranks` are the minority, or all where there is none."""

    name: str
    ranks: tuple[int, ...]

    def __str__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return (
            f"{self.name} of rank {ranks} is not that of the others"
            if len(self.ranks) == 1
            else (f"{self.name} is not alike on ranks {ranks}")
        )


def compare(sums: Mapping[str, Tensor], all_replicas: Sequence[Replicas]) -> list[Differs]:
    """What is not alike among the ranks of each group, as this rank's groups see it. Collective."""
    found = []
    for one in all_replicas:
        own = torch.stack([sums[name] for name in one.names])
        ranks = dist.get_process_group_ranks(one.group)
        table = gathered(own, one.group).T.tolist()
        found += [
            Differs(name, minority(ranks, row)) for name, row in zip(one.names, table, strict=True) if len(set(row)) > 1
        ]
    return found


def minority(ranks: Sequence[int], values: Sequence[int]) -> tuple[int, ...]:
    """The ranks whose value is not that of more than half; all of them where no value is."""
    value, count = Counter(values).most_common(1)[0]
    if count * 2 <= len(values):
        return tuple(ranks)
    return tuple(rank for rank, own in zip(ranks, values, strict=True) if own != value)


def changed(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[str]:
    """Names whose sums are not what they were."""
    if not before:
        return []
    names = list(before)
    same = torch.stack([before[name] for name in names]) == torch.stack([now[name] for name in names])
    return [name for name, alike in zip(names, cast(list[bool], same.tolist()), strict=True) if not alike]
