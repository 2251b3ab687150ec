"""Which tokens stand in one pass, which pages are theirs, and which of them are worked on together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from herd.generate.jobs import Chunk
from herd.generate.paged_cache import PagedCache
from herd.generate.torch_work import Part, arranged, parts_of
from herd.kernels import attention_plan
from herd.kernels.attention_plan import Plan, plan


@dataclass(frozen=True)
class Work:
    """What attention has to know about the tokens of one pass; the same in every layer."""

    chunks: list[Chunk]  # in the order of their tokens
    planned: Plan
    positions_1N: Tensor
    page_N: Tensor
    offset_N: Tensor
    parts: Sequence[Part]  # for torch; the compiled library goes by `planned`

    @staticmethod
    def of(chunks: Sequence[Chunk], cache: PagedCache) -> Work:
        """The tokens of the pass, one chunk after the other, those that begin alike side by side."""
        groups = [_by_pages(chunks)] if cache.compiled else arranged(chunks, cache.page)
        ordered = [chunk for group in groups for chunk in group]
        sequences = [attention_plan.Sequence(c.start, c.stop, c.table.pages) for c in ordered]
        planned = plan(sequences, cache.page, cache.per_group)
        positions, page, offset = (
            torch.from_numpy(array).to(cache.device)
            for array in (planned.positions_N, planned.places_N // cache.page, planned.places_N % cache.page)
        )
        parts = () if cache.compiled else parts_of(groups, cache)
        return Work(ordered, planned, positions[None], page, offset, parts)


def _by_pages(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Single tokens first, those with many pages in common beside one another; then parts of prompts."""
    singles = sorted((c for c in chunks if c.n_tokens == 1), key=lambda chunk: chunk.table.pages)
    return singles + [c for c in chunks if c.n_tokens > 1]
