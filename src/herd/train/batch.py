"""What a training step is fed: `Batch`, one microbatch of rows, and `BatchSource`, where microbatches come from.

It does not cover where rows come from (`packing.py`, `sources.py`, `pairs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One microbatch of B rows of T tokens.

    tokens_BT        int64 inputs
    targets_BT       int64, the token that should follow; anything where the weight is 0
    weights_BT       float32, how much each target counts; 0 for padding, prompts and document borders
    document_ids_BT  int64 or None; a token attends to earlier tokens of its own document. None: one document a row
    positions_BT     int64, counted from 0 in every document
    extras           what one objective needs beside these, e.g. DPO's reference log-probabilities; those whose names
                     end in "_host" decide which operations run and never leave main memory
    counted_N        int64, flat places of weight above 0, once they are known (`places`)
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor
    document_ids_BT: Tensor | None
    positions_BT: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    counted_N: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that pass through the network, padding included."""
        return self.tokens_BT.numel()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for `guards.save_batches`."""
        named = {"tokens_BT": self.tokens_BT, "targets_BT": self.targets_BT, "weights_BT": self.weights_BT}
        named["positions_BT"] = self.positions_BT
        if self.document_ids_BT is not None:
            named["document_ids_BT"] = self.document_ids_BT
        return named | {f"extras.{name}": tensor for name, tensor in self.extras.items()}

    def places(self) -> Tensor:
        """Flat places [N] whose targets count, in order."""
        return self.weights_BT.flatten().nonzero().squeeze(-1) if self.counted_N is None else self.counted_N

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`, by copies that the device need not be waited for.

        How many places count is found out before the move: a GPU would have to finish its work to tell.
        """
        device = torch.device(device)
        if self.tokens_BT.device == device:
            return self
        documents = self.document_ids_BT
        return replace(
            self,
            tokens_BT=_moved(self.tokens_BT, device),
            targets_BT=_moved(self.targets_BT, device),
            weights_BT=_moved(self.weights_BT, device),
            document_ids_BT=None if documents is None else _moved(documents, device),
            positions_BT=_moved(self.positions_BT, device),
            extras={n: t if n.endswith("_host") else _moved(t, device) for n, t in self.extras.items()},
            counted_N=_moved(self.places(), device),
        )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":  # only from pinned memory a copy runs beside the host
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class BatchSource(Protocol):
    """Where a run's batches come from. `batch` is a pure function: a resumed run asks for the step it stopped at."""

    def batch(self, step: int) -> list[Batch]:
        """The microbatches of optimiser step `step`, counted from 0."""
        ...
