/* x86 with AMX (Sapphire Rapids and later): tiles of 16 x 16 sums, each step adding 32 bfloat16 products to each.

   As avx512_bf16.c otherwise, and for the same operands. 32 rows of W meet up to 32 rows of x in four tiles of sums; a
   sum runs over K in order, alone in its place of the tile, whatever stands beside it. W is narrowed to bfloat16 by
   panels of 256 columns, two of which stay in the first-level cache. */
#define _DEFAULT_SOURCE /* syscall */
#include "job.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TARGET                                                                                                         \
    __attribute__((                                                                                                    \
        target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,gfni,avx2,fma,f16c")))
#define NAME(name) amx_##name
#include "narrow.inc.h"
#include "prepare.inc.h"

#define SIDE 16             /* rows and columns of a tile of sums */
#define TILE (SIDE * SIDE * 2) /* bfloat16 numbers of a tile of operands: 16 rows of 32 */
#define PANEL 4             /* groups of 64 columns that are narrowed at a time */
#define PANEL_SIZE (PANEL * 4 * TILE)
#define STRIP (32 / (2 * PANEL)) /* rows that are narrowed between two steps */
#define AHEAD 1024          /* bytes to prefetch ahead in each of the 32 rows, into the second-level cache: rows of like
                               addresses would crowd one another out of the first */

int amx_allowed(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0; /* AMX-BF16, AMX-TILE */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
}

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 0 to 3: sums of rows 0-15 and 16-31 of W by rows 0-15 and 16-31 of x. 4, 5: W. 6, 7: x. All 16 x 64 bytes. */
TARGET INLINE void configure(void) {
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = SIDE;
    }
    _tile_loadconfig(&config);
}

/* `narrow` in half of the work, for e4m3 without its seldom codes: magnitudes under 2^-6 and NaN. `least` and `most` keep
   the codes' bounds, shifted left once, which drops the sign. */
TARGET INLINE void narrow_common(const uint8_t *w, __m512i *v, __m512i *least, __m512i *most) {
    const __m512i upper = _mm512_broadcast_i32x4(_mm_setr_epi8(60, 61, 62, 63, 64, 65, 66, 67, -68, -67, -66, -65, -64,
                                                               -63, -62, -61)); /* sign, then 60 + exponent / 2 */
    __m512i code = _mm512_loadu_si512(w), doubled = _mm512_add_epi8(code, code);
    __m512i low = _mm512_gf2p8affine_epi64_epi8(code, _mm512_set1_epi64(0x01020408), 0);            /* code << 4 */
    __m512i high = _mm512_gf2p8affine_epi64_epi8(code, _mm512_set1_epi64(0x1020408000000000), 0); /* code >> 4 */
    high = _mm512_shuffle_epi8(upper, high);
    *least = _mm512_min_epu8(*least, doubled);
    *most = _mm512_max_epu8(*most, doubled);
    v[0] = _mm512_unpacklo_epi8(low, high);
    v[1] = _mm512_unpackhi_epi8(low, high);
}

/* PANEL whole groups of one row of e4m3. */
TARGET INLINE void narrow_fp8(const tables *t, const uint8_t *w, uint16_t *to) {
    __m512i least = _mm512_set1_epi8(-1), most = _mm512_setzero_si512(), v[2];
    for (int64_t g = 0; g < PANEL; g++) {
        narrow_common(w + 64 * g, v, &least, &most);
        _mm512_store_si512(to + g * 4 * TILE, v[0]);
        _mm512_store_si512(to + g * 4 * TILE + 2 * TILE, v[1]);
    }
    if (!(_mm512_cmplt_epu8_mask(least, _mm512_set1_epi8(16)) | _mm512_cmpgt_epu8_mask(most, _mm512_set1_epi8(-4)))) return;
    for (int64_t g = 0; g < PANEL; g++) {
        narrow(FP8, t, w + 64 * g, v);
        _mm512_store_si512(to + g * 4 * TILE, v[0]);
        _mm512_store_si512(to + g * 4 * TILE + 2 * TILE, v[1]);
    }
}

/* Groups first .. first + count of some rows of W into the tiles of a panel, [group][half][rows / 16]. Rows from
   `height` on are copies. */
TARGET INLINE void narrow_rows(const job *j, enum format format, const tables *t, const uint8_t *w, int64_t height,
                               int64_t first, int64_t count, int64_t row, uint16_t *panel) {
    const int64_t bytes = 64 * width_of(format), length = j->k * width_of(format), whole = j->k / 64;
    const int64_t ahead = first * bytes + AHEAD; /* behind a row's end: the same columns, 32 rows on */
    const int64_t next = ahead + (ahead < length ? 0 : 32 * j->row_bytes - length);
    for (int64_t r = row; r < row + STRIP; r++) {
        const uint8_t *from = w + (r < height ? r : height - 1) * j->row_bytes;
        uint16_t *to = panel + r / SIDE * TILE + r % SIDE * 32;
        for (int64_t i = 0; i < PANEL * bytes; i += 64) __builtin_prefetch(from + next + i, 0, 2);
        if (format == FP8 && first + PANEL <= whole) {
            narrow_fp8(t, from + first * bytes, to);
            continue;
        }
        for (int64_t g = first; g < first + count; g++, to += 4 * TILE) {
            __m512i v[2];
            if (g < whole) narrow(format, t, from + g * bytes, v);
            else narrow_rest(format, t, j, from, v);
            _mm512_store_si512(to, v[0]);
            _mm512_store_si512(to + 2 * TILE, v[1]);
        }
    }
}

/* One step of 32 columns against 16 rows of x, or 32 (`pair`). */
TARGET INLINE void multiply(const uint16_t *w, const uint16_t *x, int64_t x_tile, int pair) {
    _tile_loadd(4, w, 64);
    _tile_loadd(5, w + TILE, 64);
    _tile_loadd(6, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    if (!pair) return;
    _tile_loadd(7, x + x_tile, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

/* All of K for 32 rows of W. A panel is narrowed in strips of rows, each followed by a step of the panel before: the
   two kinds of work overlap in the processor. */
TARGET INLINE void sweep(const job *j, enum format format, const tables *t, const uint8_t *w, int64_t height,
                         const uint16_t *x, int pair, uint16_t *panels) {
    const int64_t groups = j->k_padded / 64, x_tile = j->k_padded * SIDE;
    for (int64_t g = 0, before = 0; g < groups || before; g += PANEL) {
        const int64_t left = groups - g, count = left < 0 ? 0 : left < PANEL ? left : PANEL;
        uint16_t *panel = panels + g / PANEL % 2 * PANEL_SIZE;
        const uint16_t *last = panels + (g / PANEL + 1) % 2 * PANEL_SIZE;
        for (int64_t s = 0; s < 2 * PANEL; s++) {
            if (count) narrow_rows(j, format, t, w, height, g, count, s * STRIP, panel);
            if (s < 2 * before) multiply(last + s * 2 * TILE, x + (2 * (g - PANEL) + s) * TILE, x_tile, pair);
        }
        before = count;
    }
}

TARGET INLINE void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

TARGET INLINE void write_sums(const job *j, int64_t n, int64_t height, int64_t m) {
    float sums[2][2][SIDE][SIDE] __attribute__((aligned(64)));
    _tile_stored(0, sums[0][0], 64);
    _tile_stored(1, sums[0][1], 64);
    _tile_stored(2, sums[1][0], 64);
    _tile_stored(3, sums[1][1], 64);
    const __m512i down = _mm512_mullo_epi32(_mm512_set1_epi32(SIDE), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                                                                       12, 13, 14, 15));
    for (int64_t c = 0; c < 32 && m + c < j->m; c++)
        for (int64_t r = 0; r < height; r += SIDE) { /* as `finish`, for a column of a tile */
            const __mmask16 mask = height - r < SIDE ? (__mmask16)((1u << (height - r)) - 1) : 0xffff;
            __m512 sum = _mm512_i32gather_ps(down, &sums[c / SIDE][r / SIDE][0][c % SIDE], sizeof(float));
            if (j->quantise) sum = _mm512_mul_ps(sum, _mm512_set1_ps(j->x_scale[m + c]));
            if (j->weight_scale) sum = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(mask, j->weight_scale + n + r));
            _mm512_mask_storeu_ps(j->out + (m + c) * j->out_stride + n + r, mask, sum);
        }
}

/* 32 rows of W against at most 32 of x: each panel is used once. */
TARGET INLINE void few(const job *j, enum format format, const tables *t, int64_t n, int64_t height) {
    uint16_t panels[2 * PANEL_SIZE] __attribute__((aligned(64)));
    const uint8_t *w = j->weight + n * j->row_bytes;
    zero_sums();
    if (j->m > SIDE) sweep(j, format, t, w, height, j->prepared, 1, panels);
    else sweep(j, format, t, w, height, j->prepared, 0, panels);
    write_sums(j, n, height, 0);
}

/* 32 rows of W against more of x: narrowed whole, then used for every 32 rows of x. */
TARGET INLINE void many(const job *j, enum format format, const tables *t, int64_t n, int64_t height, uint16_t *scratch) {
    const int64_t groups = j->k_padded / 64, x_tile = j->k_padded * SIDE;
    const uint8_t *w = j->weight + n * j->row_bytes;
    for (int64_t g = 0; g < groups; g += PANEL)
        for (int64_t row = 0; row < 32; row += STRIP)
            narrow_rows(j, format, t, w, height, g, groups - g < PANEL ? groups - g : PANEL, row, scratch + g * 4 * TILE);
    for (int64_t m = 0; m < j->m; m += 32) {
        const uint16_t *x = (const uint16_t *)j->prepared + m * j->k_padded;
        zero_sums();
        for (int64_t s = 0; s < 2 * groups; s++) multiply(scratch + s * 2 * TILE, x + s * TILE, x_tile, 1);
        write_sums(j, n, height, m);
    }
}

TARGET INLINE void rows(const job *j, enum format format, int64_t begin, int64_t stop, uint16_t *scratch) {
    const tables t = make_tables();
    configure();
    for (int64_t n = begin; n < stop; n += 32) {
        const int64_t height = stop - n < 32 ? stop - n : 32;
        if (j->m > 32) many(j, format, &t, n, height, scratch);
        else few(j, format, &t, n, height);
    }
    _tile_release();
}

TARGET static void rows_fp8(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, FP8, begin, stop, scratch);
}

TARGET static void rows_bf16(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, BF16, begin, stop, scratch);
}

/* One row of activations into its column of the tiles: [16 rows of x][32 columns] as [pair][row of x][2]. */
TARGET INLINE void pack(const job *j, int64_t m, int placed) {
    float *row = j->wide + m * j->k_padded;
    uint16_t *to = (uint16_t *)j->prepared + m / SIDE * SIDE * j->k_padded + m % SIDE * 2;
    amx_prepare_row(j, m, row);
    for (int64_t i = 0; i < j->k_padded; i++) {
        const int64_t at = placed ? place(i) : i;
        to[at / 32 * TILE + at % 32 / 2 * 32 + at % 2] = (uint16_t)(float_to_bits(row[i]) >> 16);
    }
}

TARGET static void prepare_fp8(const job *j, int64_t m) { pack(j, m, 1); }

TARGET static void prepare_bf16(const job *j, int64_t m) { pack(j, m, 0); }

kernel amx_kernel(enum format format) {
    if (format == FP8) return (kernel){prepare_fp8, rows_fp8, 2, 32, 32};
    if (format == BF16) return (kernel){prepare_bf16, rows_bf16, 2, 32, 32};
    return (kernel){0};
}
#else
int amx_allowed(void) { return 0; }

kernel amx_kernel(enum format format) {
    (void)format;
    return (kernel){0};
}
#endif
