"""Keys and values in pages: the tensors behind `herd.generate.pages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from herd.llama.config import LlamaConfig

if TYPE_CHECKING:
    from herd.generate.work import Work


class PagedCache:
    """Keys and values of all pages, one pair of tensors [pages, G, page, K] a layer."""

    def __init__(
        self, config: LlamaConfig, pages: int, page: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (pages, config.n_kv_heads, page, config.head_dim)
        # zeros, not empty: a rubbish NaN times an attention weight of zero would still be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.page = page
        self.work: Work | None = None  # who the tokens of the pass under way are

    @property
    def device(self) -> torch.device:
        return self.keys[0].device

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (from, to)."""
        if pairs:
            sources, targets = (torch.tensor(pages, device=self.device) for pages in zip(*pairs, strict=True))
            for tensor in (*self.keys, *self.values):
                tensor[targets] = tensor[sources]

    def write(self, layer: int, k_NGK: Tensor, v_NGK: Tensor, work: Work) -> None:
        """Put the new keys and values of a pass where they belong."""
        self.keys[layer][work.page_N, :, work.offset_N] = k_NGK
        self.values[layer][work.page_N, :, work.offset_N] = v_NGK

    def read(self, layer: int, places_BGP: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, G, K] of rows of pages, copied together; `places` counts pages and heads in one."""
        found = []
        for tensor in (self.keys[layer], self.values[layer]):
            rows = tensor.flatten(0, 1).index_select(0, places_BGP.flatten())
            found.append(rows.view(*places_BGP.shape[:2], -1, tensor.shape[-1]).transpose(1, 2))
        return found[0], found[1]
