"""A model whose attention reads keys and values out of pages: a second `Llama` over the same parameters.

    cache = PagedCache(config, pages=1024, page=16, dtype=torch.float32, device="cpu")
    paged = with_pages(model, cache)
    cache.work = Work.of(chunks, cache)               # who these tokens are, and which pages are theirs
    hidden_1ND = paged(tokens_1N, positions_BT=positions_1N)

The tokens of all chunks stand behind one another in one row, so that matrices are read once for prompts and
continuations together; only attention tells the chunks apart. Nothing under llama/ knows of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from herd.generate.scheduler import Chunk
from herd.llama import fused
from herd.llama.attention import Attention, Layout, attend, attend_one
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama

Module = TypeVar("Module", bound=nn.Module)
_SCORES = 2**22  # of a chunk of a prompt at once: a mask of that many places, and what attention makes of it


class PagedCache:
    """Keys and values of all pages, one pair of tensors [pages, G, page, K] a layer; `work` is the pass under way."""

    def __init__(
        self, config: LlamaConfig, pages: int, page: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (pages, config.n_kv_heads, page, config.head_dim)
        # zeros, not empty: a rubbish NaN times an attention weight of zero would still be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.page = page
        self.work: Work | None = None

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


@dataclass(frozen=True)
class Decoding:
    """Tokens `rows` of the pass, each the only one of its sequence; of like length, so that padding is little."""

    rows: slice
    places_BGP: Tensor
    mask_B11S: Tensor


@dataclass(frozen=True)
class Prompt:
    """Tokens `rows` of the pass are positions `start` and on of one sequence."""

    rows: slice
    start: int
    places_1GP: Tensor


@dataclass(frozen=True)
class Work:
    """What attention has to know about the tokens of one pass; the same in every layer."""

    page_N: Tensor
    offset_N: Tensor
    positions_1N: Tensor
    parts: tuple[Decoding | Prompt, ...]

    @staticmethod
    def of(chunks: Sequence[Chunk], cache: PagedCache) -> Work:
        """`chunks` in the order of `ordered`."""
        positions_N = np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks])
        page_N = np.concatenate([np.array(c.table.pages)[np.arange(c.start, c.stop) // cache.page] for c in chunks])
        parts: list[Decoding | Prompt] = []
        n_single = sum(chunk.stop - chunk.start == 1 for chunk in chunks)
        first = 0
        while first < n_single:  # a group's shortest row has at least half the pages of its longest
            most = 2 * len(chunks[first].table.pages)
            last = next((i for i in range(first, n_single) if len(chunks[i].table.pages) > most), n_single)
            parts.append(_decoding(chunks[first:last], slice(first, last), cache))
            first = last
        place = n_single
        for chunk in chunks[n_single:]:
            rows = slice(place, place + chunk.stop - chunk.start)
            parts.append(Prompt(rows, chunk.start, _places([chunk], cache)))
            place = rows.stop
        page, offset, positions = (
            torch.from_numpy(array).to(cache.device) for array in (page_N, positions_N % cache.page, positions_N)
        )
        return Work(page, offset, positions[None], tuple(parts))


def ordered(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Single tokens first, the shortest sequence first; then the parts of prompts."""
    return sorted(chunks, key=lambda chunk: (chunk.stop - chunk.start > 1, len(chunk.table.pages)))


def _decoding(chunks: Sequence[Chunk], rows: slice, cache: PagedCache) -> Decoding:
    places_BGP = _places(chunks, cache)
    stops_B = torch.tensor([chunk.stop for chunk in chunks], device=cache.device)
    slots_S = torch.arange(places_BGP.shape[2] * cache.page, device=cache.device)
    return Decoding(rows, places_BGP, (slots_S < stops_B[:, None])[:, None, None])


def _places(chunks: Sequence[Chunk], cache: PagedCache) -> Tensor:
    """Where the pages of each sequence lie, head by head; short rows are filled up with a page that the mask hides."""
    longest, G = max(len(chunk.table.pages) for chunk in chunks), cache.keys[0].shape[1]
    pages_BP = np.zeros((len(chunks), longest), dtype=np.int64)
    for row, chunk in enumerate(chunks):
        pages_BP[row, : len(chunk.table.pages)] = chunk.table.pages
    places_BGP = pages_BP[:, None, :] * G + np.arange(G)[:, None]
    return torch.from_numpy(places_BGP).to(cache.device)


class PagedAttention(nn.Module):
    """`Attention` with its own matrices, over the pages of `cache` instead of a dense one."""

    def __init__(self, plain: Attention, cache: PagedCache) -> None:
        super().__init__()
        self.plain, self._cache = plain, cache

    def forward(self, x_1ND: Tensor, layout: Layout) -> Tensor:
        plain, cache, work = self.plain, self._cache, self._cache.work
        assert work is not None, "nobody told what these tokens are"
        q_1NHK = plain.q_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        k_1NGK = plain.k_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        v_1NGK = plain.v_proj(x_1ND).unflatten(-1, (-1, plain.head_dim))
        q_1NHK = fused.rotate(q_1NHK, layout.cos, layout.sin)
        k_1NGK = fused.rotate(k_1NGK, layout.cos, layout.sin)
        cache.write(plain.layer, k_1NGK[0], v_1NGK[0], work)
        mixed_1NHK = torch.empty_like(q_1NHK)
        for part in work.parts:
            if isinstance(part, Decoding):
                q_B1HK = q_1NHK[0, part.rows, None]
                mixed = attend_one(q_B1HK, *cache.read(plain.layer, part.places_BGP), part.mask_B11S)
                mixed_1NHK[0, part.rows] = mixed[:, 0]
            elif part.start == 0:
                q, k, v = (x[:, part.rows] for x in (q_1NHK, k_1NGK, v_1NGK))
                mixed_1NHK[:, part.rows] = attend(q, k, v, Layout(layout.cos, layout.sin))
            else:
                mixed_1NHK[:, part.rows] = _continue(q_1NHK[:, part.rows], part, cache, plain.layer, layout)
        out_1ND: Tensor = plain.o_proj(mixed_1NHK.flatten(2))
        return out_1ND


def _continue(q_1THK: Tensor, part: Prompt, cache: PagedCache, layer: int, layout: Layout) -> Tensor:
    """Attention of a later part of a prompt, a few queries at a time: their scores must not fill the memory."""
    k_1SGK, v_1SGK = cache.read(layer, part.places_1GP)
    length = q_1THK.shape[1]
    at_once = max(1, _SCORES // (part.start + length))
    mixed = []
    for first in range(0, length, at_once):
        queries_T = torch.arange(first, min(first + at_once, length), device=q_1THK.device) + part.start
        stop = part.start + min(first + at_once, length)
        mask_TS = torch.arange(stop, device=q_1THK.device) <= queries_T[:, None]
        only = Layout(layout.cos, layout.sin, mask=mask_TS[None, None])
        mixed.append(attend(q_1THK[:, first : first + at_once], k_1SGK[:, :stop], v_1SGK[:, :stop], only))
    return torch.cat(mixed, dim=1)


def with_pages(model: Llama, cache: PagedCache) -> Llama:
    """The same parameters and layers, attention over pages. What is put into `model` later is not seen here."""
    backbone = _shallow(model.model)
    layers = []
    for block in model.model.layers:
        paged = _shallow(block)
        assert isinstance(block.self_attn, Attention)
        paged.self_attn = PagedAttention(block.self_attn, cache)
        layers.append(paged)
    backbone.layers = nn.ModuleList(layers)
    twin = _shallow(model)
    twin.model = backbone
    return twin


def _shallow(module: Module) -> Module:
    """A module over the same parts, whose parts can be replaced without the first one noticing."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
