"""Products of activations with weights, on the CPU: at the speed of memory for few rows, of its matrices for many.

    linear_fp8(x, weight, scale, bound=1200.0)     e4m3, activations quantised by row as released, or weight_only=True
    linear_bf16(x, weight)  linear_f32(x, weight)  linear_int8(x, weight, scale)  linear_q8_0(x, blocks)
    status()                                       what does the work on this machine, in words

`csrc/` is a small C library that the installation compiles where it finds a compiler; `library.py` binds it; without
it `fallback.py` does the same in torch. `reference.py` says in the plainest way what each product is.
Results of a row depend on that row and the weights only: not on the other rows, and not on the number of threads.
"""

from __future__ import annotations

from herd.kernels.library import status
from herd.kernels.linear import linear_bf16, linear_f32, linear_fp8, linear_int8, linear_q8_0

__all__ = ["linear_bf16", "linear_f32", "linear_fp8", "linear_int8", "linear_q8_0", "status"]
