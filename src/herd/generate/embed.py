"""Texts as vectors: the mean of a model's last hidden states over all positions, scaled to length 1.

    for vector in mean_hidden(model, prompts): ...      # None where other work may come first

A causal model was not trained for this; the mean over all positions is the usual way to get a vector out of one
nevertheless (Muennighoff 2022, SGPT, compares it with others). Long prompts are computed in parts, the keys and values
of one prompt being kept meanwhile: `config.cache_bytes_per_token()` for each of its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from herd.devices import device_of, memory_errors
from herd.errors import ArtifactError
from herd.llama.cache import KVCache
from herd.llama.model import Llama

PART = 512  # tokens computed at once
_LESS = "give shorter texts"


def mean_hidden(model: Llama, prompts: Sequence[Sequence[int]]) -> Iterator[list[float] | None]:
    """One vector of the model's width for each prompt (ids, at least one), in their order; between them and between
    the parts of a long one, None. Raises ArtifactError for hidden states that are not finite."""
    for prompt in prompts:
        with memory_errors(_LESS):
            cache = _cache(model, len(prompt))
            total_D = torch.zeros(model.config.dim, device=device_of(model))
            for start in range(0, len(prompt), PART):
                total_D += _sum_of(model, prompt[start : start + PART], cache)
                yield None
        yield _unit(total_D)


@torch.inference_mode()
def _cache(model: Llama, length: int) -> KVCache | None:
    if length <= PART:
        return None
    weight = model.model.norm.weight  # never quantised, unlike the matrices
    return KVCache(model.config, 1, length, weight.dtype, weight.device)


@torch.inference_mode()
def _sum_of(model: Llama, tokens: Sequence[int], cache: KVCache | None) -> Tensor:
    tokens_1T = torch.tensor([list(tokens)], device=device_of(model))
    hidden_TD: Tensor = model(tokens_1T, cache=cache)[0]
    return hidden_TD.float().sum(dim=0)


def _unit(total_D: Tensor) -> list[float]:
    vector_D = torch.nn.functional.normalize(total_D, dim=0)
    if not torch.isfinite(vector_D).all():
        raise ArtifactError(
            "the model's hidden states are not finite numbers",
            where="embedding",
            mend="its weights are damaged or diverged in training; take an earlier checkpoint",
        )
    values: list[float] = vector_D.tolist()
    return values
