"""What a shape costs in each format: bytes on disk, bytes that a token of an answer reads, numbers it multiplies.

    for form in FORMS:
        cost = cost_of(config, form)
        cost.answer_seconds(rates), cost.prompt_seconds(rates)      # of one token, at measured rates

A token of an answer reads every matrix once, but of the embedding one row; a token of a prompt shares the reading with
its neighbours, and its price is the multiplying.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herd.quantize.settings import POLICIES, Fp8Policy

if TYPE_CHECKING:
    from herd.commands.rates import Rate
    from herd.llama.config import LlamaConfig

# Each form by its name: a policy, or how matrices are kept that none of them touches.
FORMS: Mapping[str, Fp8Policy | str] = {
    "bf16": "bf16",
    "fp8": POLICIES["paper"],
    "fp8, all": POLICIES["all"],
    "q8_0": "q8_0",
}
_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Cost:
    """By "bf16", "fp8" and "q8_0": what is kept so."""

    stored: int  # bytes of all tensors
    read: Mapping[str, int]  # bytes for one token of an answer
    multiplied: Mapping[str, int]  # numbers of the matrices for one token

    def answer_seconds(self, rates: Mapping[str, Rate]) -> float:
        return sum(size / rates[kept].bytes_per_second for kept, size in self.read.items())

    def prompt_seconds(self, rates: Mapping[str, Rate]) -> float:
        return sum(2 * count / rates[kept].flops for kept, count in self.multiplied.items())


def cost_of(config: LlamaConfig, form: str) -> Cost:
    """What a model of this shape costs in one of FORMS; "q8_0" is a GGUF file, whose embedding is Q8_0 too."""
    from herd.weights.stored import expected_shapes

    policy = FORMS[form]
    narrow: set[str] = set()
    if isinstance(policy, Fp8Policy):
        narrow = {f"{name}.weight" for name in policy.names(config.n_layers)}
        config = policy.shape_of(config)
    stored, read, multiplied = 0, Counter[str](), Counter[str]()
    for name, shape in expected_shapes(config).items():
        matrix = len(shape) == 2
        kept = "fp8" if name in narrow else "q8_0" if policy == "q8_0" and matrix else "bf16"
        size = _bytes(kept, shape, of_gguf=policy == "q8_0")
        stored += size
        if name == _EMBEDDING and not config.tie_embeddings:
            continue
        read[kept] += size
        multiplied[kept] += math.prod(shape) if matrix else 0
    return Cost(stored, read, multiplied)


def _bytes(kept: str, shape: tuple[int, ...], of_gguf: bool) -> int:
    from herd.kernels.reference import Q8_0_BYTES, Q8_0_VALUES

    count = math.prod(shape)
    if kept == "fp8":
        return count + 4 * shape[0]
    if kept == "q8_0":
        return count // Q8_0_VALUES * Q8_0_BYTES
    return 4 * count if of_gguf else 2 * count  # a GGUF file's norms are float32
