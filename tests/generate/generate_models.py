"""Models for the tests of generation."""

from __future__ import annotations

import torch

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama


def telling_model(config: LlamaConfig) -> Llama:
    """Far from uniform: a wrong position shows in what it says."""
    model = Llama(config)
    init_weights(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)
    return model.eval()
