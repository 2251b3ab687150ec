"""Rows of numbers in e4m3, the eight-bit float with four bits of exponent: one fp32 scale a row."""

from __future__ import annotations

import torch
from torch import Tensor

E4M3_MAX = 448.0  # the largest finite float8_e4m3fn; there is no infinity, the cast itself would give NaN
_SMALLEST_ABSMAX = 1e-12  # a row of zeros gets this instead of a division by zero


def quantize_rows(x: Tensor, bound: float | None = None) -> tuple[Tensor, Tensor]:
    """e4m3 values of x [..., D] and the fp32 scale of each row [..., 1]; x is about values * scale.

    With a `bound` the row's absolute maximum counts as at most `bound`, and what lies beyond saturates. NaN stays NaN.
    """
    wide = x.to(torch.float32)
    absmax = wide.abs().amax(dim=-1, keepdim=True).clamp_(min=_SMALLEST_ABSMAX, max=bound)
    scale = absmax / E4M3_MAX
    values = (wide / scale).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return values, scale
