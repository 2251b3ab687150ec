"""A model over the pages of a cache, one pass at a time: chunks in, hidden states out.

    passes = Passes(model, cache)
    ordered, hidden_ND = passes.run(chunks, tokens_of)     # the tokens of `ordered`, one chunk after the other

On a CUDA device a pass of single tokens is one graph (`graphs`), where its kernels work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from herd.generate.graphs import Graphs
from herd.generate.jobs import Chunk
from herd.generate.paged import with_pages
from herd.generate.paged_cache import PagedCache
from herd.generate.work import Work
from herd.kernels import gpu
from herd.llama.model import Llama


class Passes:
    """`model` is the twin that reads pages; its parameters are those of the model that was given."""

    def __init__(self, model: Llama, cache: PagedCache) -> None:
        self.model, self._cache = with_pages(model, cache), cache
        captures = cache.in_place and gpu.captures(cache.device)
        self.graphs = Graphs(self.model, cache) if captures else None

    def run(
        self, chunks: Sequence[Chunk], tokens_of: Callable[[Chunk], Sequence[int]]
    ) -> tuple[Sequence[Chunk], Tensor]:
        """The chunks in the order in which they were computed, and the hidden states [N, D] of all their tokens, valid
        until the next pass."""
        if self.graphs is not None:
            hidden_ND = self.graphs.run(chunks, [tokens_of(chunk)[0] for chunk in chunks])
            if hidden_ND is not None:
                return chunks, hidden_ND
        self._cache.work = work = Work.of(chunks, self._cache)
        ids = [token for chunk in work.chunks for token in tokens_of(chunk)]
        tokens_1N = torch.tensor([ids], device=self._cache.device)
        return work.chunks, self.model(tokens_1N, positions_BT=work.positions_1N)[0]

    def forget(self) -> None:
        """Weights have changed."""
        if self.graphs is not None:
            self.graphs.forget()
