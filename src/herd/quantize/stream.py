"""BF16 to FP8 without a network: a stored model whose feed-forward matrices are quantised when they are read.

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

from herd.errors import InputError, NoEffectError
from herd.quantize.report import Fp8Report, TensorReport
from herd.quantize.settings import Fp8Policy
from herd.weights.fp8 import dequantize, quantize_rows
from herd.weights.quantization import HERD_KEY, described
from herd.weights.stored import FP8, StoredModel, scale_name
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
    names = [f"{name}.weight" for name in policy.names(model.config.n_layers)]
    if not names:
        raise NoEffectError(
            f"the policy selects no layer of {model.config.n_layers}: it keeps the first {policy.keep_first} "
            f"and the last {policy.keep_last}",
            where=str(model.path),
            mend="quantise a deeper model, or set keep_first and keep_last lower",
        )
    matrices = {name: _Matrix(model.tensors[name]) for name in names}
    tensors: dict[str, Entry] = {}
    for name, entry in model.tensors.items():
        tensors |= matrices[name].entries() if name in matrices else {name: entry}
    bytes_before = sum(entry.count for entry in model.tensors.values()) * _BF16

    def findings() -> Mapping[str, Any]:
        reports = tuple(matrix.report() for matrix in matrices.values())
        saved = sum(report.bytes_before - report.bytes_after for report in reports)
        report = Fp8Report(reports, bytes_before, bytes_before - saved)
        return {HERD_KEY: {**described(policy.activation_bound, static=False), "report": report.as_json()}}

    herd = {**model.herd, "from": str(model.path)}
    return replace(model, tensors=tensors, activation_bound=policy.activation_bound, herd=herd, findings=findings)


class _Matrix:
    """One matrix on its way to FP8; its scales and its error are known once it was worked through."""

    def __init__(self, wide: Entry) -> None:
        self._wide = wide
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
        count = self._wide.count
        return TensorReport(self._wide.name, count * _BF16, count + 4 * self._wide.shape[0], self._error)

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
