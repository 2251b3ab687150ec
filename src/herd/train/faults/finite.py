"""From which rank a gradient that is not finite came: each rank's own are looked at before they meet the others'.

After the reduction every rank has the same NaN, and nothing tells who brought it. One more reading of the gradients a
step, against the thousands of products that made each: it is always on. The answer is read only when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter

from herd.train.parallel.data import local


class OwnGradients:
    """Whether gradients that this rank made since `forget` are finite."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), device=device)

    def forget(self) -> None:
        self._sum.zero_()

    @torch.no_grad()
    def look(self, gradient: Tensor) -> None:
        own = local(gradient)
        if own.numel():  # times zero: finite values leave nothing, others leave NaN for good
            self._sum.add_(torch.linalg.vector_norm(own.detach(), dtype=torch.float32) * 0)

    def look_at(self, gradients: Mapping[str, Tensor]) -> None:
        for gradient in gradients.values():
            self.look(gradient)

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self._sum))

    def before_fsdp_reduces(self, roots: tuple[nn.Module, ...]) -> None:
        """Look at what FSDP is about to reduce."""
        for root in roots:
            for module in root.modules():
                if isinstance(module, FSDPModule):
                    module.set_custom_reduce_scatter(_Looking(self))


class _Looking(DefaultReduceScatter):
    def __init__(self, own: OwnGradients) -> None:
        self.own = own

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        self.own.look(input_tensor)
        return super().__call__(output_tensor, input_tensor, group, op, async_op)
