"""A linear layer in FP8: e4m3 values with one scale a row, as in the paper's section 6.2.

Weights have one scale per output row, made once. Activations have one per token, made on the fly, with the row's
largest magnitude bounded (1200 in the release): rare tokens with huge activations would otherwise stretch the scale
until everything else in their row underflows to zero. The bound is for activations only.
Folders of llm-compressor and AutoFP8 may have one fixed ("static") scale for all activations of a matrix instead, found
by calibration: x / scale is clamped to +-448 and rounded, and there is no bound.

Every product of two e4m3 numbers is exact in fp32, so `kernels/` equals an FP8 matrix unit that accumulates in fp32, up
to the order of the sum.
It takes the place of a layer of a built `Llama`, which knows nothing of it; it stands here because reading an FP8
folder builds it. Not here: which layers become FP8 (`quantize/`), training (there are no gradients).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from herd.errors import InputError
from herd.kernels import linear_fp8
from herd.kernels.e4m3 import E4M3_MAX as E4M3_MAX
from herd.kernels.e4m3 import quantize_rows as quantize_rows


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """values * scale in fp32."""
    return values.to(torch.float32) * scale


def quantize_fixed(x: Tensor, scale: Tensor) -> Tensor:
    """e4m3 values of x / scale for a scale that is known; what lies beyond saturates. NaN stays NaN."""
    return (x.to(torch.float32) / scale).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


class Fp8Linear(nn.Module):
    """Stands where an nn.Linear without bias stood: weight [out, in] in e4m3, weight_scale [out, 1] in fp32.

    A `static` one has an input_scale [1] in fp32 too, the fixed scale of its activations, and no bound.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, *, bound: float | None = None, static: bool = False
    ) -> None:
        super().__init__()
        assert not (static and bound), "a fixed scale bounds by itself"
        self.in_features, self.out_features, self.bound = in_features, out_features, bound
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.float8_e4m3fn))
        self.register_buffer("weight_scale", torch.empty(out_features, 1, dtype=torch.float32))
        self.register_buffer("input_scale", torch.empty(1, dtype=torch.float32) if static else None)

    @classmethod
    def of(cls, linear: nn.Linear, *, bound: float | None = None) -> Fp8Linear:
        """The FP8 version of a layer; a weight that is not finite is refused."""
        if getattr(linear, "bias", None) is not None:
            raise InputError("FP8 layers have no bias", where="Fp8Linear", mend="quantise Llama's own layers")
        weight = linear.weight.detach()
        if not bool(torch.isfinite(weight).all()):
            raise InputError("a weight holds NaN or infinity", where="Fp8Linear", mend="quantise a healthy model")
        made = cls(linear.in_features, linear.out_features, bound=bound)
        made.weight, made.weight_scale = quantize_rows(weight)
        return made

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and x.requires_grad:
            raise InputError(
                "an FP8 layer passes no gradient",
                where="Fp8Linear",
                mend="train the bf16 model and quantise afterwards; for inference call model.eval()",
            )
        with torch.no_grad():
            if self.input_scale is None:
                return linear_fp8(x, self.weight, self.weight_scale, bound=self.bound)
            values = quantize_fixed(x, self.input_scale).to(x.dtype)  # exact: e4m3 fits into any float that x may be
            return linear_fp8(values, self.weight, self.weight_scale * self.input_scale, weight_only=True)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix multiplied out, [out, in]; made anew at every call and not kept."""
        return dequantize(self.weight, self.weight_scale).to(dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fp8Linear:
        """model.to(...) moves an FP8 layer but never rounds it: bf16 values without FP8's meaning would be worse."""
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            after = self._buffers[name]
            if after is not None and after.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(after.device)
        return self

    def extra_repr(self) -> str:
        activations = f"bound={self.bound}" if self.input_scale is None else "static"
        return f"in_features={self.in_features}, out_features={self.out_features}, {activations}"
