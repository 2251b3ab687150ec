/* Products in float: 32 weights are widened to PARTS vectors at a time and multiplied by one or more rows of x.
   Included by each level, which gives TARGET, NAME(name), VEC (LANES floats), LOAD, STORE, ZERO, FMA, ADD, TOTAL,
   SET1, its ways to widen, and the tile of TILE_ROWS x TILE_COLUMNS that its registers hold. */

#define PARTS (32 / LANES)
#define AHEAD 2048 /* bytes to prefetch ahead: rows follow one another in memory */

TARGET INLINE void NAME(widen)(enum format format, const uint8_t *w, VEC *v) {
    switch (format) {
    case FP8: NAME(widen_fp8)(w, v); break;
    case BF16: NAME(widen_bf16)(w, v); break;
    case INT8: NAME(widen_int8)(w, v); break;
    default: NAME(widen_q8_0)(w, v); break;
    }
}

INLINE int64_t NAME(bytes)(enum format format) { return format == BF16 ? 64 : format == Q8_0 ? 34 : 32; }

INLINE int64_t NAME(tail_bytes)(enum format format, int64_t k) { return format == BF16 ? 2 * (k % 32) : k % 32; }

/* The e4m3 code of NaN makes the whole result NaN: looked for apart, for the shifts that widen know no NaN. */
TARGET INLINE int NAME(has_nan)(const uint8_t *w, int64_t k) {
    uint8_t top = 0;
    for (int64_t i = 0; i < k; i++) {
        uint8_t code = w[i] & 0x7f;
        top = code > top ? code : top;
    }
    return top == 0x7f;
}

TARGET INLINE void NAME(end)(const job *j, enum format format, int64_t m, int64_t n, const VEC *sums) {
    VEC sum = sums[0];
    for (int p = 1; p < PARTS; p++) sum = ADD(sum, sums[p]);
    float total = TOTAL(sum);
    finish(j, m, n, format == FP8 ? total * FP8_FACTOR : total);
}

/* One row of W and one row of x, straight from memory. */
TARGET INLINE void NAME(dot)(const job *j, enum format format, int64_t n) {
    const uint8_t *w = j->weight + n * j->row_bytes;
    const float *x = (const float *)j->prepared;
    const int64_t bytes = NAME(bytes)(format);
    VEC sums[PARTS], v[PARTS];
    for (int p = 0; p < PARTS; p++) sums[p] = ZERO;
    for (int64_t g = 0; g < j->k / 32; g++) {
        __builtin_prefetch(w + g * bytes + AHEAD);
        NAME(widen)(format, w + g * bytes, v);
        for (int p = 0; p < PARTS; p++) sums[p] = FMA(v[p], LOAD(x + 32 * g + LANES * p), sums[p]);
    }
    if (j->k % 32) {
        uint8_t rest[64] = {0};
        memcpy(rest, w + j->k / 32 * bytes, (size_t)NAME(tail_bytes)(format, j->k));
        NAME(widen)(format, rest, v);
        for (int p = 0; p < PARTS; p++) sums[p] = FMA(v[p], LOAD(x + j->k / 32 * 32 + LANES * p), sums[p]);
    }
    NAME(end)(j, format, 0, n, sums);
}

/* A row of W as floats in scratch. */
TARGET INLINE void NAME(widen_row)(const job *j, enum format format, int64_t n, float *wide) {
    const uint8_t *w = j->weight + n * j->row_bytes;
    const int64_t bytes = NAME(bytes)(format), whole = j->k / 32;
    VEC v[PARTS];
    for (int64_t g = 0; g < whole; g++) {
        __builtin_prefetch(w + g * bytes + AHEAD);
        NAME(widen)(format, w + g * bytes, v);
        for (int p = 0; p < PARTS; p++) STORE(wide + 32 * g + LANES * p, v[p]);
    }
    if (j->k % 32) {
        uint8_t rest[64] = {0};
        memcpy(rest, w + whole * bytes, (size_t)NAME(tail_bytes)(format, j->k));
        NAME(widen)(format, rest, v);
        for (int p = 0; p < PARTS; p++) STORE(wide + 32 * whole + LANES * p, v[p]);
    }
}

/* `height` widened rows of W from n on against `width` rows of x from m on; the sums run as in `dot`. */
TARGET INLINE void NAME(tile)(const job *j, enum format format, int64_t n, int64_t m, const float *wide, const int height,
                              const int width) {
    const float *x = (const float *)j->prepared + m * j->k_padded;
    const int64_t groups = (j->k + 31) / 32;
    VEC sums[TILE_ROWS][TILE_COLUMNS][PARTS];
    for (int r = 0; r < height; r++)
        for (int c = 0; c < width; c++)
            for (int p = 0; p < PARTS; p++) sums[r][c][p] = ZERO;
    for (int64_t g = 0; g < groups; g++)
        for (int p = 0; p < PARTS; p++) {
            VEC w[TILE_ROWS];
            for (int r = 0; r < height; r++) w[r] = LOAD(wide + r * j->k_padded + 32 * g + LANES * p);
            for (int c = 0; c < width; c++) {
                VEC v = LOAD(x + c * j->k_padded + 32 * g + LANES * p);
                for (int r = 0; r < height; r++) sums[r][c][p] = FMA(w[r], v, sums[r][c][p]);
            }
        }
    for (int r = 0; r < height; r++)
        for (int c = 0; c < width; c++) NAME(end)(j, format, m + c, n + r, sums[r][c]);
}

TARGET INLINE void NAME(rows)(const job *j, enum format format, int64_t begin, int64_t end, float *scratch) {
    for (int64_t n = begin; n < end; n += TILE_ROWS) {
        const int64_t height = end - n < TILE_ROWS ? end - n : TILE_ROWS;
        for (int64_t r = 0; r < height; r++) {
            if (j->m == 1) NAME(dot)(j, format, n + r);
            else NAME(widen_row)(j, format, n + r, scratch + r * j->k_padded);
        }
        int64_t m = j->m == 1 ? 1 : 0;
        if (height == TILE_ROWS)
            for (; m + TILE_COLUMNS <= j->m; m += TILE_COLUMNS)
                NAME(tile)(j, format, n, m, scratch, TILE_ROWS, TILE_COLUMNS);
        for (; m < j->m; m++)
            for (int64_t r = 0; r < height; r++) NAME(tile)(j, format, n + r, m, scratch + r * j->k_padded, 1, 1);
        for (int64_t r = 0; format == FP8 && r < height; r++)
            if (NAME(has_nan)(j->weight + (n + r) * j->row_bytes, j->k))
                for (int64_t i = 0; i < j->m; i++) write_out(j, i, n + r, __builtin_nanf(""));
    }
}

TARGET static void NAME(prepare)(const job *j, int64_t m, void *scratch) {
    (void)scratch;
    NAME(prepare_row)(j, m, (float *)j->prepared + m * j->k_padded);
}

#include "float32.inc.h"

#define ROWS_OF(format, name)                                                                                          \
    TARGET static void NAME(name)(const job *j, int64_t begin, int64_t end, void *scratch) {                           \
        NAME(rows)(j, format, begin, end, scratch);                                                                    \
    }
ROWS_OF(FP8, rows_fp8)
ROWS_OF(BF16, rows_bf16)
ROWS_OF(INT8, rows_int8)
ROWS_OF(Q8_0, rows_q8_0)

kernel NAME(kernel)(enum format format) {
    static const rows_fn rows[FORMATS] = {NAME(rows_fp8), NAME(rows_bf16), NAME(rows_int8), NAME(rows_q8_0),
                                           NULL};
    if (format == F32) return NAME(kernel_f32)();
    return (kernel){.prepare = NAME(prepare), .rows = rows[format], .x_bytes = sizeof(float), .columns = 1, .most = 128,
                    .piece = TILE_ROWS, .scratch = TILE_ROWS * sizeof(float)};
}
