# mypy: ignore-errors
"""The kernels, in Triton's language: what is in `tl` runs on the device, what is `constexpr` is known when it compiles.

M rows of activations, N of weights, K what they share; tokens, G heads of keys, R query heads a head of keys, and of
pages as in `generate/paged_cache.py`: [pages, G, page, K]. Sizes of tiles are constants, and no sum depends on how
many rows there are: a row's result is the same in any company.
"""

import os

import triton
import triton.language as tl

# The interpreter multiplies the bits of bfloat16 as if they were integers: there, numbers are widened first (exact).
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def multiply(a, b, total):
    """total + a b, products exact in fp32 for numbers of two bytes, in fp32 throughout for those of four."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def widen(code):
    """fp16 of value / 256 of an e4m3 code (uint8), exact: its fields are those of half precision, three bits up."""
    bits = code.to(tl.uint16)
    half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), half)


@triton.jit
def narrow(value):
    """The e4m3 code of an fp32 number within +-448, rounded to nearest, ties to even; NaN becomes 0x7f."""
    bits = value.to(tl.uint32, bitcast=True)
    sign, magnitude = (bits >> 24) & 0x80, bits & 0x7FFFFFFF
    # Normal: drop 20 bits of the mantissa, and take the exponent's bias from 127 to 7.
    normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - (120 << 3)
    # Subnormal: steps of 2^-9; adding 2^14 leaves just these in the mantissa, rounded by the addition itself.
    shifted = magnitude.to(tl.float32, bitcast=True) + 16384.0
    subnormal = shifted.to(tl.uint32, bitcast=True) - 0x46800000
    code = tl.where(magnitude < 0x3C800000, subnormal, normal)  # 2^-6
    code = tl.where(magnitude > 0x7F800000, 0x7F, code)
    return (sign | code).to(tl.uint8)


@triton.jit
def quantize_rows_kernel(x, codes, scales, bound, K, x_stride, BLOCK: tl.constexpr):
    """One program a row: its largest magnitude, at most `bound`, then its codes."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, K, BLOCK):
        part = tl.load(x + row * x_stride + start + columns, mask=start + columns < K, other=0.0).to(tl.float32)
        # NaN stays: a comparison with it is false, and `maximum` need not keep it
        size = tl.abs(part)
        largest = tl.where(size == size, tl.where(largest == largest, tl.maximum(largest, size), largest), size)
    any_nan = tl.max((largest != largest).to(tl.int32), 0)
    most = tl.max(tl.where(largest == largest, largest, 0.0), 0)
    most = tl.minimum(tl.maximum(most, 1e-12), bound)
    scale = tl.math.div_rn(tl.where(any_nan > 0, float("nan"), most), 448.0)
    tl.store(scales + row, scale)
    for start in range(0, K, BLOCK):
        inside = start + columns < K
        part = tl.load(x + row * x_stride + start + columns, mask=inside, other=0.0).to(tl.float32)
        exact = tl.math.div_rn(part, scale)
        held = tl.where(exact == exact, tl.minimum(tl.maximum(exact, -448.0), 448.0), exact)
        tl.store(codes + row * K + start + columns, narrow(held), mask=inside)


@triton.jit
def matmul_kernel(
    x, weight, out, M, N, K, x_stride, weight_stride, K_SPLIT,
    CODES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sums of x W^T over one part of K, fp32 [splits, M, N], codes counted as value / 256.

    x is e4m3 codes (CODES) or numbers; the weight is codes.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    ks = tl.arange(0, BLOCK_K)
    row_starts = x + rows[:, None].to(tl.int64) * x_stride
    column_starts = weight + columns[None, :].to(tl.int64) * weight_stride
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(split * K_SPLIT, tl.minimum((split + 1) * K_SPLIT, K), BLOCK_K):
        places = start + ks
        a = tl.load(row_starts + places[None, :], mask=(rows[:, None] < M) & (places[None, :] < K), other=0)
        b = tl.load(column_starts + places[:, None], mask=(columns[None, :] < N) & (places[:, None] < K), other=0)
        if CODES:
            total = multiply(widen(a), widen(b), total)
        else:
            total = multiply(a, widen(b).to(a.dtype), total)
    place = (split.to(tl.int64) * M + rows[:, None]) * N + columns[None, :]
    tl.store(out + place, total, mask=(rows[:, None] < M) & (columns[None, :] < N))


@triton.jit
def attention_kernel(
    q, keys, values, key_scales, value_scales, tables, sequence_of, positions, sums, highest, totals,
    n_tokens, pages_a_row, PER_GROUP, groups, split_length, scale,
    CODES: tl.constexpr, PAGE: tl.constexpr, SIZE: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Queries of TOKENS tokens of one sequence, and of one head of keys, over split_length positions: exp-weighted
    values, their weights, the maximum.

    A row is a token and one of its heads. Splits that begin after a token's position leave its maximum at -inf;
    `merge_kernel` passes over them.
    """
    first, group, split = tl.program_id(0) * TOKENS, tl.program_id(1), tl.program_id(2)
    n_splits = tl.num_programs(2)
    rows, width, block = tl.arange(0, R), tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    token = first + rows // PER_GROUP
    own = (rows < TOKENS * PER_GROUP) & (token < n_tokens)
    position = tl.load(positions + token, mask=own, other=-1)
    last = tl.max(position, 0)
    table = tables + tl.load(sequence_of + first).to(tl.int64) * pages_a_row
    head = (token.to(tl.int64) * groups + group) * PER_GROUP + rows % PER_GROUP
    query = tl.load(q + head[:, None] * SIZE + width[None, :], mask=own[:, None] & (width[None, :] < SIZE), other=0.0)
    most = tl.full((R,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((R,), tl.float32)
    mixed = tl.zeros((R, WIDTH), tl.float32)
    nothing = tl.zeros((R, BLOCK), tl.float32)
    for start in range(split * split_length, tl.minimum((split + 1) * split_length, last + 1), BLOCK):
        at = start + block
        there = at <= last
        seen = at[None, :] <= position[:, None]
        page = tl.load(table + at // PAGE, mask=there, other=0).to(tl.int64)
        line = (page * groups + group) * PAGE + at % PAGE
        places = line[:, None] * SIZE + width[None, :]
        inside = there[:, None] & (width[None, :] < SIZE)
        if CODES:
            k = widen(tl.load(keys + places, mask=inside, other=0)).to(query.dtype)
            v = widen(tl.load(values + places, mask=inside, other=0)).to(tl.float32)
            v = v * (tl.load(value_scales + line, mask=there, other=0.0) * 256.0)[:, None]
            scores = multiply(query, tl.trans(k), nothing) * scale
            scores = scores * (tl.load(key_scales + line, mask=there, other=0.0) * 256.0)[None, :]
            v = v.to(query.dtype)
        else:
            k = tl.load(keys + places, mask=inside, other=0.0)
            v = tl.load(values + places, mask=inside, other=0.0)
            scores = multiply(query, tl.trans(k), nothing) * scale
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen nothing yet: no -inf less -inf
        weights = tl.exp(scores - base[:, None])
        kept = tl.exp(most - base)
        weight_sum = weight_sum * kept + tl.sum(weights, 1)
        mixed = multiply(weights.to(v.dtype), v, mixed * kept[:, None])
        most = higher
    line_out = head * n_splits + split
    tl.store(highest + line_out, most, mask=own)
    tl.store(totals + line_out, weight_sum, mask=own)
    tl.store(sums + line_out[:, None] * SIZE + width[None, :], mixed, mask=own[:, None] & (width[None, :] < SIZE))


@triton.jit
def merge_kernel(sums, highest, totals, out, n_splits, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """The splits of one query folded together, in order."""
    query = tl.program_id(0).to(tl.int64)
    width = tl.arange(0, WIDTH)
    most = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    mixed = tl.zeros((WIDTH,), tl.float32)
    for split in range(n_splits):
        line = query * n_splits + split
        own = tl.load(highest + line)
        if own != float("-inf"):
            higher = tl.maximum(most, own)
            kept, added = tl.exp(most - higher), tl.exp(own - higher)
            part = tl.load(sums + line * SIZE + width, mask=width < SIZE, other=0.0)
            mixed = mixed * kept + part * added
            total = total * kept + tl.load(totals + line) * added
            most = higher
    tl.store(out + query * SIZE + width, (mixed / total).to(out.dtype.element_ty), mask=width < SIZE)
