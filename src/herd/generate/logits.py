"""The logits of a step, in memory that is kept from step to step.

Those of 32 sequences over 128,256 tokens are 8 MB as they are rounded and 16 MB as float32, and fresh memory costs a
fault for every page: a step of the 1B shape took 117 ms with it and 115 to 117 without (Xeon, two cores).
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.llama.model import Llama


class StepLogits:
    """`model.logits` for a model whose output matrix is a module of its own; a step's are gone with the next step."""

    def __init__(self, model: Llama, most: int) -> None:
        """`most`: rows of a step whose memory is kept; what has more is given memory of its own."""
        self._model, self._most = model, most
        self._kept_MV: Tensor | None = None

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """float32 [N, V], valid until the next call."""
        if self._model.config.tie_embeddings or len(hidden_ND) > self._most:
            return self._model.logits(hidden_ND)
        rounded_NV: Tensor = self._model.lm_head(hidden_ND)
        if rounded_NV.dtype == torch.float32:
            return rounded_NV
        if self._kept_MV is None or self._kept_MV.device != rounded_NV.device:
            self._kept_MV = rounded_NV.new_empty(self._most, rounded_NV.shape[1], dtype=torch.float32)
        return self._kept_MV[: len(rounded_NV)].copy_(rounded_NV)
