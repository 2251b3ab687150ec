"""Rotary positions with the Llama 3.1 frequency scaling (paper section 3.2; Meta's `apply_scaling`).

Hugging Face's layout: element i of a head turns with element i + K/2, because the parameters carry Hugging Face's
names and row order (Meta's own layout turns neighbours 2i and 2i + 1 instead).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from herd.llama.config import LlamaConfig, RopeScaling


@lru_cache(maxsize=64)
def inverse_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, device: torch.device | str = "cpu"
) -> Tensor:
    """Radians a position turns each of the K/2 pairs by, fp32; shared, never written to.

    Computed in fp32 on purpose, as the released models were: at position 100,000 one unit in the last place of a
    frequency is already 0.005 radians, so a more exact table would be a different model. Computed on the CPU, whose
    powers are those of the released tables, and kept for each device: a copy in every pass would make a GPU wait.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device="cpu").float() / head_dim
    base = 1.0 / (theta**exponents)
    return (base if scaling is None else _scale(base, scaling)).to(device)


def _scale(base: Tensor, scaling: RopeScaling) -> Tensor:
    """Keep short waves, slow long ones by `factor`, and blend in between, by wavelength against the old context."""
    context = scaling.original_max_position_embeddings
    wavelength = 2 * math.pi / base
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = (context / wavelength - low) / (high - low)  # 0 where waves are long, 1 where they are short
    blended = (1 - keep) * base / scaling.factor + keep * base
    slowed = torch.where(wavelength > context / low, base / scaling.factor, base)
    between = (wavelength <= context / low) & (wavelength >= context / high)
    return torch.where(between, blended, slowed)


def rotation(config: LlamaConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles at `positions` [...]: two fp32 tensors [..., K/2]."""
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling, positions.device)
    angles = positions.to(torch.float32)[..., None] * frequencies
    return angles.cos(), angles.sin()


def document_starts(document_ids_BT: Tensor) -> Tensor:
    """Index at which the document of each token begins, int64 [B, T]. A document is a run of equal ids."""
    starts_BT = torch.zeros_like(document_ids_BT, dtype=torch.int64)
    changed = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    steps_T = torch.arange(1, document_ids_BT.shape[1], device=document_ids_BT.device)
    starts_BT[:, 1:] = torch.where(changed, steps_T, 0)
    return starts_BT.cummax(dim=1).values
