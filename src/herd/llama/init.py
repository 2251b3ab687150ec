"""The random start of a model.

The paper never published its initialisation. We chose the common one: normal with standard deviation 0.02, and the two
matrices of each layer that write into the residual stream narrower by 1/sqrt(2 * layers) (GPT-2), so that the stream's
variance does not grow with depth; norms start at one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from herd.llama.model import Llama

STANDARD_DEVIATION = 0.02
_WRITES_TO_STREAM = ("o_proj.weight", "down_proj.weight")


@torch.no_grad()
def init_weights(model: Llama, seed: int, std: float = STANDARD_DEVIATION) -> None:
    """Fill every parameter from `seed` alone: the same bits for the same config, whatever ran before.

    Narrow models want a wider `std`: their sums have fewer terms (herd's choice; docs/log.md has the numbers).
    """
    for name, values in drawn_weights(model, seed, std):
        model.get_parameter(name).copy_(values)


def drawn_weights(model: Llama, seed: int, std: float = STANDARD_DEVIATION) -> Iterator[tuple[str, Tensor]]:
    """The random start, a parameter at a time, float32 in main memory; `model` may be on the meta device."""
    generator = torch.Generator().manual_seed(seed)
    narrow = std / math.sqrt(2 * model.config.n_layers)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            yield name, torch.ones(parameter.shape)
            continue
        own = narrow if name.endswith(_WRITES_TO_STREAM) else std
        # drawn in fp32 on the CPU, so that neither the device nor the dtype changes the draw
        yield name, torch.empty(parameter.shape).normal_(0.0, own, generator=generator)
