"""A BF16 layer that decodes at the speed of memory on the CPU: few rows go through the kernel, the rest through torch.

It is an `nn.Linear` with the same parameter, so adapters attach to it, `state_dict` has the same names, and whatever
needs gradients takes torch's path. Measured on two cores of a Xeon with AMX (bench/results, kernel-bf16): one row 1.2
to 1.6 times torch's speed, eight rows 1.1 to 1.2, 32 rows 0.9 to 1.0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels import linear_bf16
from herd.llama.attention import Linear

_MOST_ROWS = 8


class Bf16Linear(Linear):
    """Stands where a `Linear` stood whose weight is bfloat16 on the CPU; moved or cast it is a plain one."""

    def forward(self, x: Tensor) -> Tensor:
        few = x.numel() <= _MOST_ROWS * self.in_features and not torch.is_grad_enabled()
        if few and x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.bfloat16:
            return linear_bf16(x, self.weight)
        return super().forward(x)
