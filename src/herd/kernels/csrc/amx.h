/* Tiles of products on AMX, and what fills and empties them. Included behind job.h.

   A tile holds 16 rows of 64 bytes. Sums are [row of W][row of x] in float, operands 16 rows of W by 32 columns, or 16
   pairs of columns by up to 16 rows of x ("pairs": the instruction adds two neighbours' products at a time). */
#ifndef HERD_AMX_H
#define HERD_AMX_H

#include <immintrin.h>

#define TARGET                                                                                                         \
    __attribute__((                                                                                                    \
        target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,gfni,avx2,fma,f16c")))
#define NAME(name) amx_##name
#include "narrow.inc.h"
#include "tiles.inc.h"
#include "transpose.inc.h"

/* Sums follow one another in memory. */
TARGET INLINE void load_sums(const float *sums, int64_t stride) {
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + SIDE * SIDE, stride);
    _tile_loadd(2, sums + 2 * SIDE * SIDE, stride);
    _tile_loadd(3, sums + 3 * SIDE * SIDE, stride);
}

TARGET INLINE void store_sums(float *sums, int64_t stride) {
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + SIDE * SIDE, stride);
    _tile_stored(2, sums + 2 * SIDE * SIDE, stride);
    _tile_stored(3, sums + 3 * SIDE * SIDE, stride);
}

#define SELDOM 8 /* the highest rank of codes that `narrow_common` cannot take */

/* `narrow` in half of the work, for e4m3 without its seldom codes: magnitudes under 2^-6 and NaN. `least` keeps the
   least rank: the exponent's bits and the mantissa's, turned by the highest so that an exponent of zeros has ranks 0 to
   7 and NaN, all ones, has 8. One map and one minimum: each more is felt, for this is what the reading waits for. */
TARGET INLINE void narrow_common(const uint8_t *w, __m512i *v, __m512i *least) {
    const __m512i lower = _mm512_set1_epi64(0x01020408);         /* code << 4 */
    const __m512i upper = _mm512_set1_epi64(0x1020400000000080); /* sign, 1000, upper three bits of the exponent */
    const __m512i ranks = _mm512_set1_epi64(0x4142444060504800); /* e3 ^ each of m0 m1 m2 0 e2 e1 e0; no sign */
    __m512i code = _mm512_loadu_si512(w);
    __m512i low = _mm512_gf2p8affine_epi64_epi8(code, lower, 0);
    __m512i high = _mm512_gf2p8affine_epi64_epi8(code, upper, 0x40);
    *least = _mm512_min_epu8(*least, _mm512_gf2p8affine_epi64_epi8(code, ranks, 0));
    v[0] = _mm512_unpacklo_epi8(low, high);
    v[1] = _mm512_unpackhi_epi8(low, high);
}

/* A panel is a stretch of columns of some rows of W: tiles as [32 columns][16 rows]. */
typedef struct {
    const uint8_t *w; /* the first of its rows */
    int64_t height;   /* rows that are there; copies of the last one stand for the rest */
    int64_t first, count; /* its groups of 64 columns */
    int64_t next;     /* bytes from what is narrowed to what should come into the second-level cache meanwhile */
} panel;

TARGET INLINE const uint8_t *row_of(const job *j, const panel *p, int64_t r) {
    return p->w + (r < p->height ? r : p->height - 1) * j->row_bytes;
}

/* Whether 64 codes hold a seldom one. */
TARGET INLINE int has_seldom(const uint8_t *w) {
    const __m512i code = _mm512_loadu_si512(w), doubled = _mm512_add_epi8(code, code); /* without the sign */
    const __mmask64 small = _mm512_cmplt_epu8_mask(doubled, _mm512_set1_epi8(16));
    return (small | _mm512_cmpeq_epu8_mask(doubled, _mm512_set1_epi8(-2))) != 0;
}

/* Rows begin .. end of a panel of e4m3, all of them there and whole groups only; 0 if they hold a seldom code. */
TARGET INLINE int narrow_fp8(const job *j, const panel *p, int64_t begin, int64_t end, const int64_t count,
                             uint16_t *to) {
    const int64_t stride = j->row_bytes, next = p->next;
    const uint8_t *from = p->w + begin * stride + 64 * p->first;
    __m512i least = _mm512_set1_epi8(-1), v[2];
    for (uint16_t *at = to + begin * 32; at < to + end * 32; at += 32, from += stride)
        for (int64_t g = 0; g < count; g++) {
            __builtin_prefetch(from + 64 * g + next, 0, 2);
            narrow_common(from + 64 * g, v, &least);
            _mm512_store_si512(at + 4 * g * TILE, v[0]);
            _mm512_store_si512(at + (4 * g + 2) * TILE, v[1]);
        }
    return !_mm512_cmple_epu8_mask(least, _mm512_set1_epi8(SELDOM));
}

/* What `narrow_fp8` could not: the lines of 64 codes that hold a seldom one, few as they are. */
TARGET static __attribute__((noinline)) void narrow_seldom(const job *j, const tables *t, const panel *p, int64_t begin,
                                                           int64_t end, uint16_t *to) {
    for (int64_t g = 0; g < p->count; g++) {
        const uint8_t *from = p->w + (p->first + g) * 64;
        uint64_t lines = 0;
        for (int64_t r = begin; r < end; r++)
            lines |= (uint64_t)has_seldom(from + r * j->row_bytes) << (r - begin);
        for (; lines; lines &= lines - 1) {
            const int64_t r = begin + __builtin_ctzll(lines);
            __m512i v[2];
            narrow(FP8, t, from + r * j->row_bytes, v);
            _mm512_store_si512(to + 4 * g * TILE + r * 32, v[0]);
            _mm512_store_si512(to + (4 * g + 2) * TILE + r * 32, v[1]);
        }
    }
}

/* Rows begin .. end of a panel, mostly of `usual` groups, into the tiles at `to`. */
TARGET INLINE void narrow_rows(const job *j, enum format format, const tables *t, const panel *p, int64_t begin,
                               int64_t end, const int64_t usual, uint16_t *to) {
    const int64_t bytes = 64 * width_of(format), whole = j->k / 64;
    __m512i v[2];
    if (format == FP8 && p->count == usual && p->first + usual <= whole && end <= p->height) {
        if (!narrow_fp8(j, p, begin, end, usual, to)) narrow_seldom(j, t, p, begin, end, to);
        return;
    }
    for (int64_t r = begin; r < end; r++) {
        const uint8_t *row = row_of(j, p, r);
        uint16_t *at = to + r * 32;
        for (int64_t g = p->first; g < p->first + p->count; g++, at += 4 * TILE) {
            for (int64_t i = 0; p->next && i < bytes; i += 64) __builtin_prefetch(row + g * bytes + p->next + i, 0, 2);
            if (g < whole) narrow(format, t, row + g * bytes, v);
            else narrow_rest(format, t, j, row, v);
            _mm512_store_si512(at, v[0]);
            _mm512_store_si512(at + 2 * TILE, v[1]);
        }
    }
}

INLINE __mmask16 low_mask(int64_t count) { return count < SIDE ? (__mmask16)((1u << count) - 1) : 0xffff; }

/* Scales after the sums, and one rounding: `finish` of 16 results of a row of x. */
TARGET INLINE void write_row(const job *j, int64_t m, int64_t n, __m512 sum, __mmask16 mask) {
    if (j->quantise) sum = _mm512_mul_ps(sum, _mm512_set1_ps(j->x_scale[m]));
    if (j->weight_scale) sum = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(mask, j->weight_scale + n));
    const int64_t at = m * j->out_stride + n;
    if (j->x_type == X_FLOAT32) {
        _mm512_mask_storeu_ps((float *)j->out + at, mask, sum);
        return;
    }
    const __m512i bits = _mm512_castps_si512(sum);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i nan = _mm512_set1_epi32(0x7fc00000);
    const __m512i rounded = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(sum, sum, _CMP_UNORD_Q), nan);
    _mm256_mask_storeu_epi16((uint16_t *)j->out + at, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

#endif
