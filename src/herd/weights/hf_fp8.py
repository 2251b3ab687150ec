"""The FP8 matrices of a Hugging Face folder and their scales, as every writer spells them, in herd's one spelling.

A weight's scale becomes fp32 [out, 1], whether the file has one a row or one for the matrix. A fixed scale of
activations becomes fp32 [1]; it is one number that stands before a whole matrix, so it is looked at when the folder is
opened, not when the matrix is used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from herd.errors import ArtifactError
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.weights.quantization import Fp8Layout
from herd.weights.stored import FP8, input_scale_name, scale_name
from herd.weights.tensors import Entry

_AGAIN = "config.json and weights belong to different models, or a file is damaged; copy the folder again"


def check_fp8(config: LlamaConfig, tensors: Mapping[str, Entry], layout: Fp8Layout | None, folder: Path) -> None:
    """FP8 values without their scales, or scales of other values, would load in silence and mean nothing."""
    stated = [f"{name}.weight" for name in _linears(config) if layout is not None and layout.covers(name)]
    for name, entry in tensors.items():
        if (entry.dtype == FP8) != (name in stated):
            raise ArtifactError(
                f"tensor {name} is {entry.dtype}, which does not agree with config.json's quantization_config",
                where=str(folder / entry.place),
                mend=_AGAIN,
            )
    for name in stated:
        if layout is None or name not in tensors or layout.static == (input_scale_name(name) in tensors):
            continue
        scheme, found = ("static", "is missing") if layout.static else ("dynamic", "is there")
        raise ArtifactError(
            f"config.json says that scales of activations are {scheme}, and {input_scale_name(name)} {found}",
            where=str(folder),
            mend=_AGAIN,
        )


def kept_wide(config: LlamaConfig, fp8: Collection[str]) -> list[str]:
    """The linear layers that stay as they are where the weights `fp8` are FP8, as a quantization_config names them.

    Other programs have an lm_head even where its weight is the embedding.
    """
    names = [name for name in _linears(config) if f"{name}.weight" not in fp8]
    return [*names, *(["lm_head"] if config.tie_embeddings else [])]


def _linears(config: LlamaConfig) -> list[str]:
    with torch.device("meta"):
        return [name for name, module in Llama(config).named_modules() if isinstance(module, nn.Linear)]


def with_scales(tensors: Mapping[str, Entry], folder: Path) -> dict[str, Entry]:
    """The same tensors with the scales of FP8 matrices in herd's spelling.

    ArtifactError for a fixed scale of activations that is no positive number.
    """
    made = dict(tensors)
    for name, entry in tensors.items():
        if entry.dtype != FP8:
            continue
        if scale := tensors.get(scale_name(name)):
            made[scale.name] = _by_row(scale, entry.shape[0])
        if fixed := tensors.get(input_scale_name(name)):
            made[fixed.name] = _fixed(fixed, folder)
    return made


def _by_row(scale: Entry, rows: int) -> Entry:
    if not scale.dtype.is_floating_point or scale.count not in (1, rows) or len(scale.shape) > 2:
        return scale  # the check of all tensors says what is wrong
    return Entry(
        scale.name,
        (rows, 1),
        torch.float32,
        lambda: scale.values().float().reshape(-1, 1).expand(rows, 1).contiguous(),
        scale.place,
    )


def _fixed(scale: Entry, folder: Path) -> Entry:
    if scale.count != 1 or not scale.dtype.is_floating_point:
        raise _refused(scale, f"is {scale.dtype} {list(scale.shape)}", folder)
    value = scale.values().float().reshape(1)
    if not 0 < value.item() < math.inf:
        raise _refused(scale, f"is {value.item():g}", folder)
    return Entry(scale.name, (1,), torch.float32, lambda: value, scale.place)


def _refused(scale: Entry, found: str, folder: Path) -> ArtifactError:
    return ArtifactError(
        f"{scale.name} {found}; a fixed scale of activations is one positive number",
        where=str(folder / scale.place),
        mend="the calibration failed or the file is damaged: take the model's BF16 folder, or download this one again",
    )
