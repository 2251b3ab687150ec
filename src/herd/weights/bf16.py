"""A BF16 layer that decodes at the speed of memory on the CPU, and on AMX computes prompts as fast as torch does.

It is an `nn.Linear` with the same parameter, so adapters attach to it, `state_dict` has the same names, and whatever
needs gradients takes torch's path. Where the kernel takes all rows, a row's result depends on no other row; without AMX
it takes few, and torch the rest. Measured on two cores of a Xeon with AMX: bench/results, kernel-bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels import linear_bf16
from herd.kernels.library import kernels
from herd.llama.attention import Linear

_FEW = 8


class Bf16Linear(Linear):
    """Stands where a `Linear` stood whose weight is bfloat16 on the CPU; moved or cast it is a plain one."""

    def forward(self, x: Tensor) -> Tensor:
        on_cpu = x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.bfloat16
        if on_cpu and not torch.is_grad_enabled() and self._takes(x.numel()):
            return linear_bf16(x, self.weight)
        return super().forward(x)

    def _takes(self, count: int) -> bool:
        found = kernels()
        return count <= _FEW * self.in_features or (found is not None and found.multiplies_matrices)
