"""Which number format a training run computes in: what its settings say, or what the device is fastest at.

bfloat16 pays where the processor multiplies it faster than float32: with matrix tiles (AMX), and on AMD from Zen 4
on, whose dot product of bfloat16 pairs runs at full rate (371 against 133 GFLOP/s on two cores). Intel's without
tiles runs at half of that and loses to float32 (170 against 320), and older processors only imitate it. CUDA devices
have matrix units for it from Ampere on.
"""

from __future__ import annotations

from typing import Any

import torch

from herd.devices import multiplies_bfloat16
from herd.train.settings import TrainSettings


def compute_dtype(settings: TrainSettings, device: torch.device) -> torch.dtype:
    """The dtype of products and activations on `device`; weights and moments are float32 always.

    "auto" depends on nothing but the device, so that a run resumed there computes as it did before.
    """
    if settings.dtype == "auto":
        fast = multiplies_bfloat16(device) if device.type == "cuda" else _fast_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32


def _fast_bfloat16() -> bool:
    # From torch 2.12 on; without it float32 is never wrong.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and "AMD" in able.get("cpu_name", "")))
