/* x86 with AVX512 BF16 and VBMI (Zen 4, Sapphire Rapids and later): dot products of bfloat16 pairs, summed in float.

   For weights in e4m3 or bfloat16 and activations that bfloat16 holds exactly (bfloat16 itself, or e4m3 values): every
   product is exact in float. The instruction takes bfloat16 numbers and sums under 2^-126 for zero. */
#include "job.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define NAME(name) avx512_bf16_##name
#include "prepare.inc.h"

#define AHEAD 4096
#define TILE_ROWS 4
#define TILE_COLUMNS 3
#define MOST 128

#include "narrow.inc.h"

TARGET INLINE __m512 dp(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

TARGET INLINE void end(const job *j, int64_t m, int64_t n, const __m512 *sums) {
    finish(j, m, n, _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])));
}

/* One row of W and one row of x, straight from memory. */
TARGET INLINE void dot(const job *j, enum format format, const tables *t, int64_t n) {
    const int64_t bytes = 64 * width_of(format);
    const uint8_t *w = j->weight + n * j->row_bytes;
    const uint16_t *x = (const uint16_t *)j->prepared;
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    __m512i v[2];
    int64_t whole = j->k / 64;
    for (int64_t g = 0; g < whole; g++) {
        __builtin_prefetch(w + g * bytes + AHEAD);
        if (format == BF16) __builtin_prefetch(w + g * bytes + AHEAD + 64);
        narrow(format, t, w + g * bytes, v);
        for (int p = 0; p < 2; p++) sums[p] = dp(sums[p], v[p], _mm512_loadu_si512(x + 64 * g + 32 * p));
    }
    if (j->k % 64) {
        narrow_rest(format, t, j, w, v);
        for (int p = 0; p < 2; p++) sums[p] = dp(sums[p], v[p], _mm512_loadu_si512(x + 64 * whole + 32 * p));
    }
    end(j, 0, n, sums);
}

/* A row of W as bfloat16 in scratch. */
TARGET INLINE void narrow_row(const job *j, enum format format, const tables *t, int64_t n, uint16_t *narrowed) {
    const int64_t bytes = 64 * width_of(format), whole = j->k / 64;
    const uint8_t *w = j->weight + n * j->row_bytes;
    __m512i v[2];
    for (int64_t g = 0; g < whole; g++) {
        __builtin_prefetch(w + g * bytes + AHEAD);
        if (format == BF16) __builtin_prefetch(w + g * bytes + AHEAD + 64);
        narrow(format, t, w + g * bytes, v);
        for (int p = 0; p < 2; p++) _mm512_storeu_si512(narrowed + 64 * g + 32 * p, v[p]);
    }
    if (j->k % 64) {
        narrow_rest(format, t, j, w, v);
        for (int p = 0; p < 2; p++) _mm512_storeu_si512(narrowed + 64 * whole + 32 * p, v[p]);
    }
}

/* `height` narrowed rows of W from n on against `width` rows of x from m on; the sums run as in `dot`. */
TARGET INLINE void tile(const job *j, int64_t n, int64_t m, const uint16_t *narrowed, const int height,
                        const int width) {
    const uint16_t *x = (const uint16_t *)j->prepared + m * j->k_padded;
    __m512 sums[TILE_ROWS][TILE_COLUMNS][2];
    for (int r = 0; r < height; r++)
        for (int c = 0; c < width; c++) sums[r][c][0] = sums[r][c][1] = _mm512_setzero_ps();
    for (int64_t g = 0; g < j->k_padded / 64; g++)
        for (int p = 0; p < 2; p++) {
            __m512i w[TILE_ROWS];
            for (int r = 0; r < height; r++) w[r] = _mm512_loadu_si512(narrowed + r * j->k_padded + 64 * g + 32 * p);
            for (int c = 0; c < width; c++) {
                __m512i v = _mm512_loadu_si512(x + c * j->k_padded + 64 * g + 32 * p);
                for (int r = 0; r < height; r++) sums[r][c][p] = dp(sums[r][c][p], w[r], v);
            }
        }
    for (int r = 0; r < height; r++)
        for (int c = 0; c < width; c++) end(j, m + c, n + r, sums[r][c]);
}

TARGET INLINE void rows(const job *j, enum format format, int64_t begin, int64_t stop, uint16_t *scratch) {
    const tables t = make_tables();
    if (j->m == 1) {
        for (int64_t n = begin; n < stop; n++) dot(j, format, &t, n);
        return;
    }
    for (int64_t n = begin; n < stop; n += TILE_ROWS) {
        const int64_t height = stop - n < TILE_ROWS ? stop - n : TILE_ROWS;
        for (int64_t r = 0; r < height; r++) narrow_row(j, format, &t, n + r, scratch + r * j->k_padded);
        int64_t m = 0;
        if (height == TILE_ROWS) {
            for (; m + TILE_COLUMNS <= j->m; m += TILE_COLUMNS) tile(j, n, m, scratch, TILE_ROWS, TILE_COLUMNS);
            for (; m < j->m; m++) tile(j, n, m, scratch, TILE_ROWS, 1);
        }
        for (; m < j->m; m++)
            for (int64_t r = 0; r < height; r++) tile(j, n + r, m, scratch + r * j->k_padded, 1, 1);
    }
}

TARGET static void rows_fp8(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, FP8, begin, stop, scratch);
}

TARGET static void rows_bf16(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, BF16, begin, stop, scratch);
}

/* One row of activations as bfloat16. */
TARGET INLINE void pack(const job *j, int64_t m, int placed, float *wide) {
    avx512_bf16_prepare_row(j, m, wide);
    narrow_x(wide, j->k_padded, placed, (uint16_t *)j->prepared + m * j->k_padded);
}

TARGET static void prepare_fp8(const job *j, int64_t m, void *scratch) { pack(j, m, 1, scratch); }

TARGET static void prepare_bf16(const job *j, int64_t m, void *scratch) { pack(j, m, 0, scratch); }

kernel avx512_bf16_kernel(enum format format) {
    static const kernel made = {.x_bytes = 2, .columns = 1, .most = MOST,
                                .piece = TILE_ROWS, .scratch = 2 * TILE_ROWS + sizeof(float)};
    kernel found = made;
    if (format != FP8 && format != BF16) return (kernel){0};
    found.prepare = format == FP8 ? prepare_fp8 : prepare_bf16;
    found.rows = format == FP8 ? rows_fp8 : rows_bf16;
    return found;
}
#endif
