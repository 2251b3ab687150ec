"""Which tokens of a pass one call of attention serves: for GPUs, and where nothing is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from herd.generate.jobs import Chunk
from herd.generate.paged_cache import PagedCache

_SAVED = 64  # pages that need not be copied, for which single tokens with a beginning in common get a call of their own


@dataclass(frozen=True)
class Decoding:
    """Tokens `rows` of the pass, each the only one of its sequence. The pages that all begin with are read once."""

    rows: slice
    shared_1GP: Tensor | None
    places_BGP: Tensor  # of the pages after those
    mask_B11S: Tensor


@dataclass(frozen=True)
class InPlace:
    """Tokens `rows` of the pass for a kernel that copies nothing; all int32. Each is the only one of its sequence, or
    all are of the one whose table is there."""

    rows: slice
    tables_SP: Tensor  # page numbers; short rows are filled up with a page that no position reaches
    sequence_N: Tensor
    positions_N: Tensor


@dataclass(frozen=True)
class Prompt:
    """Tokens `rows` of the pass are positions `start` and on of one sequence."""

    rows: slice
    start: int
    places_1GP: Tensor


Part = Decoding | InPlace | Prompt


def parts_of(groups: Sequence[Sequence[Chunk]], cache: PagedCache) -> list[Part]:
    """`groups` as `arranged` makes them."""
    parts: list[Part] = []
    place = 0
    for group in groups:
        rows = slice(place, place + sum(chunk.n_tokens for chunk in group))
        if group[0].n_tokens == 1:
            parts.append(_decoding(group, rows, cache))
        elif cache.in_place and (group[0].start or not cache.exact):
            parts.append(_in_place(group, rows, cache))
        else:
            parts.append(Prompt(rows, group[0].start, _places([group[0].table.pages], cache)))
        place = rows.stop
    return parts


def arranged(chunks: Sequence[Chunk], page: int) -> list[list[Chunk]]:
    """Chunks that one call of attention serves: single tokens with a long beginning in common, single tokens of
    sequences of like length (the shortest has at least half the pages of the longest), and parts of prompts alone."""
    families: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        if chunk.n_tokens == 1:
            families.setdefault(chunk.table.pages[0], []).append(chunk)
    groups: list[list[Chunk]] = []
    rest: list[Chunk] = []
    for family in families.values():
        shared = _shared(family, page)
        if shared:
            groups += _of_like_length(family, shared)
        else:
            rest += family
    groups += _of_like_length(rest, 0)
    return groups + [[chunk] for chunk in chunks if chunk.n_tokens > 1]


def _of_like_length(chunks: Sequence[Chunk], shared: int) -> list[list[Chunk]]:
    groups: list[list[Chunk]] = []
    for chunk in sorted(chunks, key=lambda chunk: len(chunk.table.pages)):
        if groups and len(chunk.table.pages) - shared <= 2 * (len(groups[-1][0].table.pages) - shared):
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    return groups


def _shared(chunks: Sequence[Chunk], page: int) -> int:
    """How many full pages all begin with, never the page that is written; 0 if to read them once saves too little."""
    most = min((chunk.stop - 1) // page for chunk in chunks)
    first = chunks[0].table.pages
    for chunk in chunks[1:]:
        pages = chunk.table.pages
        most = next((i for i in range(most) if pages[i] != first[i]), most)
    return most if most * (len(chunks) - 1) >= _SAVED else 0


def _decoding(chunks: Sequence[Chunk], rows: slice, cache: PagedCache) -> Decoding | InPlace:
    shared = _shared(chunks, cache.page)
    if cache.in_place and not shared:
        return _in_place(chunks, rows, cache)
    places_BGP = _places([chunk.table.pages[shared:] for chunk in chunks], cache)
    stops_B = torch.tensor([chunk.stop - shared * cache.page for chunk in chunks], device=cache.device)
    slots_S = torch.arange(places_BGP.shape[2] * cache.page, device=cache.device)
    mask_B11S = (slots_S < stops_B[:, None])[:, None, None]
    beginning = _places([chunks[0].table.pages[:shared]], cache) if shared else None
    return Decoding(rows, beginning, places_BGP, mask_B11S)


def _places(pages: Sequence[Sequence[int]], cache: PagedCache) -> Tensor:
    """Where the pages of each sequence lie, head by head; short rows are filled up with a page that the mask hides."""
    G = cache.layers[0].keys.shape[1]
    places_BGP = filled(pages)[:, None, :] * G + np.arange(G)[:, None]
    return torch.from_numpy(places_BGP).to(cache.device)


def _in_place(chunks: Sequence[Chunk], rows: slice, cache: PagedCache) -> InPlace:
    tables_SP = filled([chunk.table.pages for chunk in chunks])
    sequence_N = np.repeat(np.arange(len(chunks)), [chunk.n_tokens for chunk in chunks])
    positions_N = np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks])
    numbers = (tables_SP, sequence_N, positions_N)
    return InPlace(rows, *(torch.from_numpy(one.astype(np.int32)).to(cache.device) for one in numbers))


def filled(pages: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Tables of pages, short ones filled up with page 0."""
    filled_BP = np.zeros((len(pages), max(map(len, pages))), dtype=np.int64)
    for row, some in enumerate(pages):
        filled_BP[row, : len(some)] = some
    return filled_BP
