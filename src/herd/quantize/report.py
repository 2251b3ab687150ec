"""What a quantisation saved and what it cost, tensor by tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorReport:
    """Bytes with the scales counted; the error is |W - dequantised| / |W|, in the Frobenius norm."""

    name: str
    bytes_before: int
    bytes_after: int
    relative_error: float


@dataclass(frozen=True)
class Fp8Report:
    """Bytes are those of the saved folder, bf16 where not FP8."""

    tensors: tuple[TensorReport, ...]
    bytes_before: int
    bytes_after: int

    @property
    def saved(self) -> float:
        """The share of bytes that went away."""
        return 1 - self.bytes_after / self.bytes_before

    @property
    def worst(self) -> TensorReport:
        return max(self.tensors, key=lambda tensor: tensor.relative_error)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"saved": self.saved, "worst_relative_error": self.worst.relative_error}
