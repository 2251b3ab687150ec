"""BF16 to FP8 without a network: a stored model whose matrices are quantised when they are read.

    write_stored(quantised(open_model(folder)), target, HuggingFace(), WriteOptions(), progress)

The values are those of `quantize_model`, bit for bit, and a matrix is worked on a few rows at a time, so that a model
of any size needs little more memory than its largest tensor. A resumed run measures again what it does not write again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from herd.errors import InputError
from herd.quantize.report import Fp8Report, TensorReport
from herd.quantize.settings import Fp8Policy
from herd.weights.fp8 import dequantize, quantize_rows
from herd.weights.quantization import HERD_KEY, described
from herd.weights.stored import EMBEDDING, FP8, StoredModel, in_order, scale_name
from herd.weights.tensors import Entry

_BF16 = 2  # bytes
_CHUNK = 2**24  # values at a time: 64 MB in fp32, of which three or four exist at once


def quantised(model: StoredModel, policy: Fp8Policy | None = None) -> StoredModel:
    """The model with the policy's matrices in FP8, each beside its scale; nothing is read yet.

    Raises NoEffectError when the policy selects nothing, InputError when the model is FP8 already and, while it is
    read, when a weight is not finite.
    """
    policy = policy or Fp8Policy()
    if model.is_fp8:
        raise InputError("the model is quantised already", where=str(model.path), mend="start from the bf16 model")
    names = [f"{name}.weight" for name in policy.selected(model.config, str(model.path))]
    matrices = {name: _Matrix(name, model) for name in names}
    tensors = {name: _narrow(entry) for name, entry in model.tensors.items()}
    for name in names:
        tensors |= matrices[name].entries()
    config = policy.shape_of(model.config)
    tensors = in_order(config, tensors)
    bytes_before = sum(entry.count for entry in model.tensors.values()) * _BF16

    def findings() -> Mapping[str, Any]:
        report = Fp8Report.of(policy.name, [matrix.report() for matrix in matrices.values()], bytes_before)
        return {HERD_KEY: {**described(policy.activation_bound, static=False), "report": report.as_json()}}

    herd = {**model.herd, "from": str(model.path)}
    made = replace(model, config=config, tensors=tensors, herd=herd, findings=findings)
    return replace(made, activation_bound=policy.activation_bound)


def _narrow(entry: Entry) -> Entry:
    """What stays wide is BF16 at the most: vLLM would compute in float32 where the folder holds it."""
    wide = entry.dtype in (torch.float32, torch.float64)
    return (
        replace(entry, dtype=torch.bfloat16, values=lambda: entry.values().bfloat16(), packed=None) if wide else entry
    )


class _Matrix:
    """One matrix on its way to FP8; its scales and its error are known once it was worked through."""

    def __init__(self, name: str, model: StoredModel) -> None:
        self._is_new = name not in model.tensors  # a tied model's head, which is its embedding
        self._wide = replace(model.tensors[EMBEDDING if self._is_new else name], name=name)
        self._scale: Tensor | None = None
        self._error = 0.0

    def entries(self) -> dict[str, Entry]:
        wide, scale = self._wide, scale_name(self._wide.name)
        return {
            wide.name: Entry(wide.name, wide.shape, FP8, self._values, wide.place),
            scale: Entry(scale, (wide.shape[0], 1), torch.float32, self._scales, wide.place),
        }

    def report(self) -> TensorReport:
        self._scales()
        count, rows = self._wide.count, self._wide.shape[0]
        return TensorReport(self._wide.name, 0 if self._is_new else count * _BF16, count + 4 * rows, self._error)

    def _scales(self) -> Tensor:
        if self._scale is None:
            self._values()
        assert self._scale is not None
        return self._scale

    def _values(self) -> Tensor:
        weight = self._wide.values()
        values = torch.empty(self._wide.shape, dtype=FP8)
        scale = torch.empty(self._wide.shape[0], 1)
        wrong = total = 0.0
        step = max(1, _CHUNK // self._wide.shape[1])
        for start in range(0, self._wide.shape[0], step):
            part = slice(start, start + step)
            rows = weight[part].float()
            values[part], scale[part] = quantize_rows(rows)
            total += float(rows.norm()) ** 2
            wrong += float(rows.sub_(dequantize(values[part], scale[part])).norm()) ** 2
        if not torch.isfinite(torch.tensor(total)):
            raise InputError("a weight holds NaN or infinity", where=self._wide.name, mend="quantise a healthy model")
        self._scale, self._error = scale, (wrong / max(total, 1e-60)) ** 0.5
        return values
