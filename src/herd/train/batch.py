"""What a training step is fed: `Batch`, one microbatch of rows, and `BatchSource`, where microbatches come from.

It does not cover where rows come from (`packing.py`, `sources.py`, `pairs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    extras           what one objective needs beside these, e.g. DPO's reference log-probabilities
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor
    document_ids_BT: Tensor | None
    positions_BT: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Tokens that pass through the network, padding included."""
        return self.tokens_BT.numel()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for `guards.save_batch` and moving between devices."""
        named = {"tokens_BT": self.tokens_BT, "targets_BT": self.targets_BT, "weights_BT": self.weights_BT}
        named["positions_BT"] = self.positions_BT
        if self.document_ids_BT is not None:
            named["document_ids_BT"] = self.document_ids_BT
        return named | {f"extras.{name}": tensor for name, tensor in self.extras.items()}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        documents = self.document_ids_BT
        return Batch(
            self.tokens_BT.to(device),
            self.targets_BT.to(device),
            self.weights_BT.to(device),
            None if documents is None else documents.to(device),
            self.positions_BT.to(device),
            {name: tensor.to(device) for name, tensor in self.extras.items()},
        )


class BatchSource(Protocol):
    """Where a run's batches come from. `batch` is a pure function: a resumed run asks for the step it stopped at."""

    def batch(self, step: int) -> list[Batch]:
        """The microbatches of optimiser step `step`, counted from 0."""
        ...
