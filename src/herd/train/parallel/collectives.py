"""What ranks of a group tell each other in one call, of equal shapes on each. Without gradients of their own."""

from __future__ import annotations

from torch import Tensor
from torch import distributed as dist

# torch 2.13 gave both a new name and warns of the old one.
gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
scatter_into = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gathered(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[...] of every rank -> [ranks, ...], in the order of the group."""
    own, ranks = own.contiguous(), dist.get_world_size(group)
    found = own.new_empty(ranks, *own.shape)
    gather_into(found.view(-1), own.view(-1), group=group)
    return found


def scattered_sum(parts: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[ranks, ...], summands of every rank's part -> [...], the sum of this rank's."""
    parts = parts.contiguous()
    own = parts.new_empty(parts.shape[1:])
    scatter_into(own.view(-1), parts.view(-1), group=group)
    return own
