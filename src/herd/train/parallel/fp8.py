"""FP8 products in training, through torchao: activations, weights and gradients rounded to e4m3 with a scale a row.

Only where the GPU multiplies FP8 (compute capability 8.9 and up). The paper trained in BF16; this is herd's choice.
"""

from __future__ import annotations

import torch
from torch import nn

from herd.errors import DeviceError, MissingExtraError, SettingError
from herd.weights.lora import adapted

_LEAST = (8, 9)


def convert(part: nn.Module, device: torch.device) -> None:
    """Replace the matrices of all layers, in place; embedding and output matrix stay.

    Raises DeviceError where there are no FP8 units, SettingError for adapters, MissingExtraError without torchao.
    """
    if any(True for _ in adapted(part)):  # their own function multiplies base and adapter in one go
        raise SettingError(
            "precision=fp8 is for training all weights, and these are adapters",
            where="plan.precision",
            mend="train with precision=dtype; a frozen base in eight bits is --base fp8",
        )
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _LEAST:
        raise DeviceError(
            f"{device.type} has no units for FP8 training",
            where="plan.precision",
            mend="train with precision=dtype, or on a GPU from compute capability 8.9 on (H100, H200, L40S)",
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError("torchao", "fp8") from error
    convert_to_float8_training(
        part, config=Float8LinearConfig.from_recipe_name("rowwise"), module_filter_fn=multiplies_fp8
    )


def multiplies_fp8(module: nn.Module, name: str) -> bool:
    """Whether the module of this name is a matrix of a layer."""
    return isinstance(module, nn.Linear) and ".layers." in name
