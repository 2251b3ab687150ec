"""A pass that is recorded once and carried out by one call, on the CPU.

    program = Program(most)
    program.norm(x, None, weight, eps, out=normed)         # buffers [most, D] that the caller made
    program.product(normed, weight, scale, out=q)          # ... in the order of the pass
    program.run(rows, cos, sin, planned)                   # on the first rows of every buffer

An operation does what the function of the same name does (`linear.py`, `fused.py`, `attention.py`), by the same entry
point and so to the bit; what goes is the way there from Python, some 60 us at every one. Products of the same x that
follow one another are done together, and `swiglu` with the two before it. The program keeps every tensor whose address
it noted. Whether a weight has been put elsewhere since is its owner's to know.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from herd.kernels.attention import Attention, PageTensors, attention_call, check_pages
from herd.kernels.attention_plan import Plan
from herd.kernels.fused import NORM, ROTATE, SWIGLU, Elementwise, check_angles, norm_call, rotate_call, swiglu_call
from herd.kernels.library import kernels
from herd.kernels.linear import FORMATS, TYPES, check
from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES

_PRODUCT, _ELEMENTWISE, _ATTENTION = range(3)  # `enum operation_kind` in csrc/program.c


class _Product(ctypes.Structure):
    """`product` of csrc/product.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "scale", "out")),
        *((name, ctypes.c_int64) for name in ("n", "k", "row_bytes")),
        *((name, ctypes.c_int32) for name in ("format", "x_type", "quantise")),
        ("bound", ctypes.c_float),
    )


class _Of(ctypes.Union):
    _fields_ = (("product", _Product), ("elementwise", Elementwise), ("attention", Attention))


class _Operation(ctypes.Structure):
    """`operation` of csrc/program.c."""

    _fields_ = (("kind", ctypes.c_int32), ("what", ctypes.c_int32), ("of", _Of))


class _Step(ctypes.Structure):
    """`step` of csrc/program.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "n_blocks")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "places", "positions", "blocks", "segments", "tables")),
    )


class Program:
    """Operations over buffers of `most` rows that lie without gaps."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._operations: list[_Operation] = []
        self._kept: list[Tensor | PageTensors] = []
        self._array: ctypes.Array[_Operation] | None = None  # what the library walks, once it is asked for
        self._first: tuple[Tensor, PageTensors] | None = None  # queries and pages; those of other layers are alike

    def product(
        self, x: Tensor, weight: Tensor, scale: Tensor | None = None, *, out: Tensor, bound: float | None = None
    ) -> None:
        """out = x W^T as `linear_fp8` (activations quantised), `linear_bf16`, ... do it; the weight's dtype tells."""
        blocks = weight.dtype == torch.uint8
        k = weight.shape[-1] // Q8_0_BYTES * Q8_0_VALUES if blocks else weight.shape[-1]
        check(x, weight, weight.dtype, k, scale)
        self._check_buffers(x, out)
        whole = weight.stride(1) == 1 and (scale is None or scale.is_contiguous())
        scaled = weight.dtype in (torch.float8_e4m3fn, torch.int8)
        if out.shape[1] != weight.shape[0] or not whole or scaled != (scale is not None):
            raise ValueError(
                f"a weight of {tuple(weight.shape)} does not lie right for {tuple(out.shape)}, or its scale"
            )
        made = _Product(
            x=x.data_ptr(),
            weight=weight.data_ptr(),
            scale=None if scale is None else scale.data_ptr(),
            out=out.data_ptr(),
            n=weight.shape[0],
            k=k,
            row_bytes=weight.stride(0) * weight.element_size(),
            format=FORMATS[weight.dtype],
            x_type=TYPES[x.dtype],
            quantise=weight.dtype == torch.float8_e4m3fn,
            bound=float("inf") if bound is None else bound,
        )
        self._add(_Operation(_PRODUCT, 0, _Of(product=made)), x, weight, out, *(() if scale is None else (scale,)))

    def norm(self, x: Tensor, y: Tensor | None, weight: Tensor, eps: float, *, out: Tensor) -> None:
        """`rms_norm`, or with y `add_rms_norm`: x + y stays in x."""
        self._check_buffers(x, out, *(() if y is None else (y,)))
        of = _Of(elementwise=norm_call(x, y, weight, eps, out))
        self._add(_Operation(_ELEMENTWISE, NORM, of), x, weight, out, *(() if y is None else (y,)))

    def swiglu(self, gate: Tensor, up: Tensor) -> None:
        """`swiglu`, in the place of gate."""
        self._check_buffers(gate, up)
        self._add(_Operation(_ELEMENTWISE, SWIGLU, _Of(elementwise=swiglu_call(gate, up))), gate, up)

    def rotate(self, q: Tensor, k: Tensor, v: Tensor, pages: PageTensors) -> None:
        """`rotate_into`, in the place of q [most, H K]; k and v [most, G K]."""
        self._check_buffers(q, k, v)
        size = pages.keys.shape[-1]
        q_NHK, k_NGK, v_NGK = (x.view(self.most, -1, size) for x in (q, k, v))
        self._check_pages(q_NHK, pages)
        of = _Of(elementwise=rotate_call(q_NHK, k_NGK, v_NGK, pages))
        self._add(_Operation(_ELEMENTWISE, ROTATE, of), q, k, v, pages)

    def attend(self, q: Tensor, pages: PageTensors, *, out: Tensor) -> None:
        """`paged_attention` of q [most, H K]."""
        self._check_buffers(q, out)
        if q.shape != out.shape or q.dtype != out.dtype:
            raise ValueError(f"queries {tuple(q.shape)} do not fit {tuple(out.shape)}")
        q_NHK, out_NHK = (x.view(self.most, -1, pages.keys.shape[-1]) for x in (q, out))
        self._check_pages(q_NHK, pages)
        self._add(_Operation(_ATTENTION, 0, _Of(attention=attention_call(q_NHK, pages, out_NHK))), q, out, pages)

    def run(self, rows: int, cos: Tensor, sin: Tensor, planned: Plan) -> None:
        """Carry it out on the first `rows` rows of the buffers; cos, sin [rows, K / 2] as `rotate_into` takes them."""
        found = kernels()
        assert found is not None, "recorded where the library was"
        if not 0 < rows <= self.most:
            raise ValueError(f"{rows} rows, not 1 to {self.most}")
        cos, sin = cos.contiguous(), sin.contiguous()
        if self._first is not None:
            q_NHK, pages = self._first
            check_angles(cos, sin, q_NHK[:rows], pages, planned)
        if self._array is None:
            self._array = (_Operation * len(self._operations))(*self._operations)
        arrays = (planned.places_N, planned.positions_N, planned.blocks, planned.segments, planned.tables)
        angles = (cos.data_ptr(), sin.data_ptr())
        step = _Step(rows, len(planned.blocks), *angles, *(array.ctypes.data for array in arrays))
        count = ctypes.c_int64(len(self._operations))
        if found.library.herd_run_program(found.level, found.threads, count, self._array, ctypes.byref(step)):
            raise MemoryError(f"no memory for a pass of {rows} tokens")

    def _add(self, operation: _Operation, *tensors: Tensor | PageTensors) -> None:
        self._operations.append(operation)
        self._kept += tensors
        self._array = None

    def _check_pages(self, q_NHK: Tensor, pages: PageTensors) -> None:
        check_pages(q_NHK, pages)
        first_NHK, first = self._first = self._first or (q_NHK, pages)
        if first_NHK.shape != q_NHK.shape or first.keys.shape != pages.keys.shape:
            raise ValueError(f"pages {tuple(pages.keys.shape)} do not fit those of other layers")

    def _check_buffers(self, *buffers: Tensor) -> None:
        """The library trusts these sizes."""
        if not all(x.dim() == 2 and len(x) == self.most and x.is_contiguous() for x in buffers):
            raise ValueError(f"buffers are {self.most} rows that lie without gaps")
        if len({x.dtype for x in buffers}) != 1 or any(x.device.type != "cpu" for x in buffers):
            raise ValueError("buffers of a program are of one dtype, on the CPU")
