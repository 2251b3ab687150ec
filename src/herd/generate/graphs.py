"""Decoding steps as CUDA graphs: which are captured, and how a step is filled up to one that was.

A pass over one new token a sequence launches the same kernels whatever the tokens are, if sequences and pages of each
are as many as before. So a few numbers of sequences and of pages are captured, and a step runs in the next larger one:
the tokens that fill it up write to a page that is nobody's and are not looked at. A graph is captured when its size
was wanted a few times (a capture takes as long as some steps). Where capturing fails the engine goes on without.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.generate.jobs import Chunk
from herd.generate.paged_cache import PagedCache
from herd.generate.torch_work import InPlace, filled
from herd.generate.work import Work
from herd.kernels.gpu.graphs import Captured
from herd.llama.model import Llama

log = logging.getLogger("herd.generate")
_WORTH = 8  # steps of a size before it is captured: three runs to warm up, and the capture
_LEAST_PAGES = 32  # of a captured table: the 512 positions that one program of the attention kernel reads
_STEP = 4  # the next wider table has so many times the pages: what is not there costs programs that end at once


class Size(NamedTuple):
    """Of a captured step: sequences, and pages of each."""

    rows: int
    pages: int


def size_for(rows: int, pages: int) -> Size:
    """The smallest size that is captured for so many. Rows are powers of two and the middles between two of them, so
    that no more than a third of a step fills it up."""
    power = 1 << (rows - 1).bit_length()
    middle = power * 3 // 4
    width = _LEAST_PAGES
    while width < pages:
        width *= _STEP
    return Size(middle if middle >= rows and power > 2 else power, width)


class Graphs:
    """The captured steps of one paged model over one cache."""

    def __init__(self, model: Llama, cache: PagedCache) -> None:
        self._model, self._cache = model, cache
        self._captured: dict[Size, Captured] = {}
        self._wanted: Counter[Size] = Counter()
        self._pool = torch.cuda.graph_pool_handle() if cache.device.type == "cuda" else None
        self.failure = ""  # why nothing more is captured

    @property
    def sizes(self) -> list[Size]:
        """What was captured."""
        return sorted(self._captured)

    def run(self, chunks: Sequence[Chunk], tokens: Sequence[int]) -> Tensor | None:
        """Hidden states [N, D] of one new token of each of N sequences, valid until the next run; None for a pass that
        no graph is there for."""
        if self.failure or any(chunk.n_tokens != 1 for chunk in chunks):
            return None
        size = size_for(len(chunks), max(len(chunk.table.pages) for chunk in chunks))
        inputs = self._inputs(chunks, tokens, size)
        captured = self._captured.get(size) or self._capture(size, inputs, chunks)
        return None if captured is None else captured(**inputs)[: len(chunks)]

    def forget(self) -> None:
        """Weights have changed, and may lie elsewhere."""
        self._captured.clear()

    def _capture(self, size: Size, inputs: dict[str, Tensor], chunks: Sequence[Chunk]) -> Captured | None:
        self._wanted[size] += 1
        if self._wanted[size] < _WORTH:
            return None
        template = Work.of(chunks, self._cache)  # what torch does not look at stays that of these chunks

        def step(numbers_4N: Tensor, tables_NP: Tensor) -> Tensor:
            tokens_N, positions_N, page_N, offset_N = numbers_4N
            places = torch.arange(len(tokens_N), dtype=torch.int32, device=tokens_N.device)
            part = InPlace(slice(0, len(tokens_N)), tables_NP, places, positions_N.to(torch.int32))
            self._cache.work = replace(
                template, positions_1N=positions_N[None], page_N=page_N, offset_N=offset_N, parts=(part,)
            )
            hidden_ND: Tensor = self._model(tokens_N[None], positions_BT=positions_N[None])[0]
            return hidden_ND

        there = {name: each.to(self._cache.device) for name, each in inputs.items()}
        try:
            captured = self._captured[size] = Captured(step, there, self._pool)
        except Exception as error:  # whatever a device or a layer has against it: steps run as they did before
            self.failure = f"{type(error).__name__}: {error}"
            log.warning("decoding goes on without CUDA graphs: %s", self.failure)
            return None
        return captured

    def _inputs(self, chunks: Sequence[Chunk], tokens: Sequence[int], size: Size) -> dict[str, Tensor]:
        """The numbers of a step in main memory, filled up with tokens at position 0 of the page that is nobody's."""
        page, nobodys = self._cache.page, self._cache.nobodys
        numbers_4N = np.zeros((4, size.rows), dtype=np.int64)
        numbers_4N[2] = nobodys
        starts = np.array([chunk.start for chunk in chunks])
        written = [chunk.table.pages[chunk.start // page] for chunk in chunks]
        numbers_4N[:, : len(chunks)] = tokens, starts, written, starts % page
        tables_NP: NDArray[np.int32] = np.full((size.rows, size.pages), nobodys, dtype=np.int32)
        own = filled([chunk.table.pages for chunk in chunks])
        tables_NP[: len(chunks), : own.shape[1]] = own
        return {"numbers_4N": torch.from_numpy(numbers_4N), "tables_NP": torch.from_numpy(tables_NP)}
