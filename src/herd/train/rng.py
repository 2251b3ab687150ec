"""The state of torch's random generators in a checkpoint: an adapter's dropout draws from them, nothing else.

A CUDA device has a generator of its own, which the CPU's cannot go on from: a run that changes the device goes on with
the generator that is there.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CPU, CUDA = "torch_rng_state", "cuda_rng_state"


def states(device: torch.device) -> dict[str, Tensor]:
    """The states by name, in main memory: the CPU's, and that of a CUDA `device`."""
    found = {CPU: torch.get_rng_state()}
    if device.type == "cuda":
        found[CUDA] = torch.cuda.get_rng_state(device)
    return found


def restore(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `states` gave, as far as `device` has use for it."""
    torch.set_rng_state(tensors[CPU])
    if device.type == "cuda" and CUDA in tensors:
        torch.cuda.set_rng_state(tensors[CUDA], device)
