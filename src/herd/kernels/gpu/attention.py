"""Attention of the tokens of a pass over keys and values in pages, on a CUDA device.

    mixed_NHK = paged_attention(q_NHK, pages, tables_SP, sequence_N, positions_N)
    mixed_THK = prompt_attention(q_THK, pages, table_P, positions_T)

Every token sees positions 0 to its own of its sequence, whose page i is tables_SP[sequence, i]. Keys come in blocks of
64 positions, and parts of 512 are worked on side by side and folded together in order: a token's result depends on no
other token. Tokens of one sequence read its keys together, 16 of them where four query heads share a head of keys; the
parts of many tokens are as long as the sequence, for there is work enough without them. Shapes alone decide what is
launched, so that a decoding step can be captured (`graphs.py`): the same tensors hold the next step's numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from herd.kernels.attention import PageTensors
from herd.kernels.gpu import code, launching_on

_BLOCK, _SPLIT = 64, 512  # positions
_COLUMN = 128  # bytes of a tile's column: 64 rows (tokens by query heads of a head of keys) of numbers of two bytes
_FEW = 64  # tokens of one sequence whose parts are worked on side by side
_FEWEST_ROWS = 16  # of a tile that a matrix unit takes


def paged_attention(
    q_NHK: Tensor, pages: PageTensors, tables_SP: Tensor, sequence_N: Tensor, positions_N: Tensor
) -> Tensor:
    """softmax(q k / sqrt(K)) v, [N, H, K] in q's dtype.

    `tables_SP` int32, a row a sequence; `sequence_N` and `positions_N` int32. Numbers in pages are of q's dtype, or
    e4m3 with a scale for each position and head.
    """
    return _attend(q_NHK, pages, tables_SP, sequence_N, positions_N, tokens=1, split=_SPLIT)


def prompt_attention(q_THK: Tensor, pages: PageTensors, table_P: Tensor, positions_T: Tensor) -> Tensor:
    """The same for tokens of one sequence, whose pages are those of `table_P`; [T, H, K]."""
    per_group = max(1, q_THK.shape[1] // pages.keys.shape[1])
    split = _SPLIT if len(q_THK) <= _FEW else table_P.shape[0] * pages.keys.shape[2]
    alone_T = torch.zeros_like(positions_T)
    tokens = max(1, _COLUMN // q_THK.element_size() // per_group)
    return _attend(q_THK, pages, table_P[None], alone_T, positions_T, tokens=tokens, split=split)


def _attend(
    q_NHK: Tensor,
    pages: PageTensors,
    tables_SP: Tensor,
    sequence_N: Tensor,
    positions_N: Tensor,
    *,
    tokens: int,
    split: int,
) -> Tensor:
    """`tokens` neighbours, of one sequence if they are more than one, are a tile; a part has `split` positions."""
    _check(q_NHK, pages, tables_SP, sequence_N, positions_N)
    q_NHK = q_NHK.contiguous()
    n_tokens, heads, size = q_NHK.shape
    _, groups, page, _ = pages.keys.shape
    splits = max(1, -(-tables_SP.shape[1] * page // split))
    sums = torch.empty(n_tokens, heads, splits, size, dtype=torch.float32, device=q_NHK.device)
    highest, totals = (torch.empty(n_tokens, heads, splits, device=q_NHK.device) for _ in range(2))
    of_codes = pages.keys.dtype == torch.float8_e4m3fn
    keys, values = (each.view(torch.uint8) if of_codes else each for each in (pages.keys, pages.values))
    scales = (pages.key_scale, pages.value_scale) if of_codes else (highest, highest)  # not looked at without codes
    width, per_group = _power(size), heads // groups
    out_NHK = torch.empty_like(q_NHK)
    with launching_on(q_NHK.device):
        code.attention_kernel[(-(-n_tokens // tokens), groups, splits)](
            *(q_NHK, keys, values, *scales, tables_SP, sequence_N, positions_N, sums, highest, totals),
            *(n_tokens, tables_SP.stride(0), per_group, groups, split, size**-0.5),
            CODES=of_codes,
            PAGE=page,
            SIZE=size,
            R=max(_FEWEST_ROWS, _power(tokens * per_group)),
            WIDTH=width,
            BLOCK=_BLOCK,
            TOKENS=tokens,
        )
        code.merge_kernel[(n_tokens * heads,)](sums, highest, totals, out_NHK, splits, SIZE=size, WIDTH=width)
    return out_NHK


def _power(size: int) -> int:
    """The next power of two, 16 at the least: what tiles are made in."""
    return max(16, 1 << (size - 1).bit_length())


def _check(q_NHK: Tensor, pages: PageTensors, tables_SP: Tensor, sequence_N: Tensor, positions_N: Tensor) -> None:
    """The kernel trusts these sizes."""
    n_tokens, heads, size = q_NHK.shape
    n_pages, groups, page, _ = pages.keys.shape
    if heads % groups or not pages.keys.shape == pages.values.shape == (n_pages, groups, page, size):
        raise ValueError(f"queries {tuple(q_NHK.shape)} do not fit pages {tuple(pages.keys.shape)}")
    if not sequence_N.shape == positions_N.shape == (n_tokens,) or tables_SP.dim() != 2 or tables_SP.stride(1) != 1:
        raise ValueError(f"tables {tuple(tables_SP.shape)} or places do not fit {n_tokens} tokens")
    if any(each.dtype != torch.int32 for each in (tables_SP, sequence_N, positions_N)):
        raise ValueError("tables, sequences and positions are int32")
    scales = (pages.key_scale, pages.value_scale)
    if pages.keys.dtype == torch.float8_e4m3fn:
        if any(scale is None or scale.shape != pages.keys.shape[:3] for scale in scales):
            raise ValueError("pages in e4m3 need a float32 scale for every position and head of keys and values")
    elif pages.keys.dtype != q_NHK.dtype:
        raise ValueError(f"queries in {q_NHK.dtype}, pages in {pages.keys.dtype}")
    if not all(each is None or each.is_contiguous() for each in pages):
        raise ValueError("pages are one piece of memory each")
