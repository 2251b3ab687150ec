"""What a quantisation saved and what it cost, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorReport:
    """Bytes with the scales counted; the error is |W - dequantised| / |W|, in the Frobenius norm.

    A tied model's head was no matrix of its own before: 0 bytes.
    """

    name: str
    bytes_before: int
    bytes_after: int
    relative_error: float


@dataclass(frozen=True)
class Fp8Report:
    """Bytes are those of the saved folder, bf16 where not FP8."""

    policy: str  # its name, "" for one of nobody's
    tensors: tuple[TensorReport, ...]
    bytes_before: int
    bytes_after: int

    @classmethod
    def of(cls, policy: str, tensors: Sequence[TensorReport], bytes_before: int) -> Fp8Report:
        """Of a model that took `bytes_before` in bf16."""
        saved = sum(tensor.bytes_before - tensor.bytes_after for tensor in tensors)
        return cls(policy, tuple(tensors), bytes_before, bytes_before - saved)

    @property
    def saved(self) -> float:
        """The share of bytes that went away; negative where a tied model's head weighs more than all others lost."""
        return 1 - self.bytes_after / self.bytes_before

    @property
    def worst(self) -> TensorReport:
        return max(self.tensors, key=lambda tensor: tensor.relative_error)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"saved": self.saved, "worst_relative_error": self.worst.relative_error}
