/* x86 with AMX (Sapphire Rapids and later): tiles of 16 x 16 sums, each step adding 32 bfloat16 products to each.

   As avx512_bf16.c otherwise, and for the same operands. A sum runs over K in order, alone in its place of a tile,
   whatever stands beside it. Up to 16 rows of x meet 64 rows of W at a time, more of them 32: four tiles of sums, for an
   instruction waits 52 cycles for the one before it on the same tile and could start after 16. */
#define _DEFAULT_SOURCE /* syscall */
#include "job.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "amx.h"
#include "prepare.inc.h"

#ifndef AHEAD
#define AHEAD 1024  /* bytes to prefetch ahead in each row of W, into the second-level cache: rows of like addresses would
                       crowd one another out of the first */
#endif
#ifndef FEW8
#define FEW8 4
#endif
#ifndef FEW16
#define FEW16 2
#endif
#ifndef TALL
#define TALL 2
#endif
#define PANEL_TILES (2 * (FEW8 > FEW16 ? FEW8 : FEW16) * (TALL > 2 ? TALL : 2))
#ifndef BLOCK
#define BLOCK 4     /* and in one that is used for many rows of x */
#endif
#ifndef STRIPS
#define STRIPS 4    /* of 32 rows of W, for which a stretch of the columns of x stays in the second-level cache */
#endif
#define MOST 512    /* rows of x: W is read once for so many */

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

INLINE int64_t columns_of(const job *j) { return j->m < SIDE ? j->m : SIDE; }

/* Tiles 0 to 3: sums. Up to 16 rows of x: 4, 5 and 7 are of W, 6 is x. More: 4, 5 are of W, 6, 7 of x. */
TARGET INLINE void configure(const job *j) {
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        const int is_w = i == 4 || i == 5 || (i == 7 && j->m <= SIDE);
        config.row_bytes[i] = (uint16_t)(is_w ? 64 : 4 * columns_of(j));
        config.rows[i] = SIDE;
    }
    _tile_loadconfig(&config);
}

/* One step of 32 columns: 64 rows of W against up to 16 of x, `stride` bytes from one pair of columns to the next. */
TARGET INLINE void multiply_tall(const uint16_t *w, const uint16_t *x, int64_t stride) {
    _tile_loadd(6, x, stride);
    _tile_loadd(4, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + TILE, 64);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(7, w + 2 * TILE, 64);
    _tile_dpbf16ps(2, 7, 6);
    _tile_loadd(4, w + 3 * TILE, 64);
    _tile_dpbf16ps(3, 4, 6);
}

TARGET INLINE void multiply_low(const uint16_t *w, const uint16_t *x, int64_t stride) {
    _tile_loadd(6, x, stride);
    _tile_loadd(4, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + TILE, 64);
    _tile_dpbf16ps(1, 5, 6);
}

/* 32 rows of W against 32 of x, whose tiles lie x_tile numbers apart. */
TARGET INLINE void multiply_square(const uint16_t *w, const uint16_t *x, int64_t x_tile) {
    _tile_loadd(4, w, 64);
    _tile_loadd(6, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + TILE, 64);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(7, x + x_tile, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

TARGET INLINE void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

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

TARGET INLINE void write_row(const job *j, int64_t m, int64_t n, __m512 sum, __mmask16 mask) {
    if (j->quantise) sum = _mm512_mul_ps(sum, _mm512_set1_ps(j->x_scale[m]));
    if (j->weight_scale) sum = _mm512_mul_ps(sum, _mm512_maskz_loadu_ps(mask, j->weight_scale + n));
    const int64_t at = m * j->out_stride + n;
    if (j->x_type == X_FLOAT32) {
        _mm512_mask_storeu_ps((float *)j->out + at, mask, sum);
        return;
    }
    const __m512i bits = _mm512_castps_si512(sum), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i nan = _mm512_set1_epi32(0x7fc00000);
    const __m512i rounded = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(sum, sum, _CMP_UNORD_Q), nan);
    _mm256_mask_storeu_epi16((uint16_t *)j->out + at, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

/* A tile of sums, [16 rows of W from n on][16 rows of x from m on], as `finish` of all of them. */
TARGET INLINE void write_tile(const job *j, const float *sums, int64_t n, int64_t height, int64_t m) {
    const __mmask16 mask = height < SIDE ? (__mmask16)((1u << height) - 1) : 0xffff;
    __m512i v[SIDE];
    for (int r = 0; r < SIDE; r++) v[r] = _mm512_load_si512(sums + r * SIDE);
    NAME(transpose_words)(v);
    for (int c = 0; c < SIDE; c++)
        if (m + c < j->m) write_row(j, m + c, n, _mm512_castsi512_ps(v[c]), mask);
}

/* The four tiles of sums: `tall` of them beneath one another, the others beside. */
TARGET INLINE void write_sums(const job *j, const float *sums, int64_t n, int64_t height, int64_t m, const int tall) {
    for (int i = 0; i < 4; i++)
        if (i % tall * SIDE < height && m + i / tall * SIDE < j->m)
            write_tile(j, sums + i * SIDE * SIDE, n + i % tall * SIDE, height - i % tall * SIDE, m + i / tall * SIDE);
}

/* All of K for 16 * tall rows of W and at most 16 * wide of x. A panel is narrowed in strips of rows, each followed by a
   step of the panel before: the two kinds of work overlap in the processor. */
TARGET INLINE void few(const job *j, enum format format, const tables *t, int64_t n, int64_t height, const int tall,
                       const int wide) {
    const int64_t usual = format == FP8 ? FEW8 : FEW16, strip = tall * SIDE / (2 * usual);
    uint16_t tiles[2][PANEL_TILES * TILE] __attribute__((aligned(64)));
    float sums[4 * SIDE * SIDE] __attribute__((aligned(64))) = {0};
    const int64_t groups = j->k_padded / 64, length = j->k * width_of(format), stride = 4 * columns_of(j);
    const int64_t step = wide == 1 ? stride / 2 * SIDE : TILE;
    const uint16_t *x = j->prepared;
    panel p = {.w = j->weight + n * j->row_bytes, .height = height};
    zero_sums();
    for (int64_t g = 0, before = 0; g < groups || before; g += usual) {
        p.first = g;
        p.count = groups - g < 0 ? 0 : groups - g < usual ? groups - g : usual;
        p.next = g * 64 * width_of(format) + AHEAD < length ? AHEAD : AHEAD + tall * SIDE * j->row_bytes - length;
        for (int64_t s = 0; s < 2 * usual; s++) {
            if (p.count) narrow_rows(j, format, t, &p, s * strip, (s + 1) * strip, tall, usual, tiles[g / usual % 2]);
            if (s >= 2 * before) continue;
            const uint16_t *w = tiles[(g / usual + 1) % 2] + s * tall * TILE;
            if (tall == 4) multiply_tall(w, x + (2 * (g - usual) + s) * step, stride);
            else if (wide == 1) multiply_low(w, x + (2 * (g - usual) + s) * step, stride);
            else multiply_square(w, x + (2 * (g - usual) + s) * step, j->k_padded * SIDE);
        }
        before = p.count;
    }
    store_sums(sums, 64);
    write_sums(j, sums, n, height, 0, tall);
}

/* Some strips of 32 rows of W against more than 32 of x. A panel is narrowed once and used for all rows of x; between
   stretches of columns the sums, exact as they are, wait in scratch. */
TARGET INLINE void many(const job *j, enum format format, const tables *t, int64_t begin, int64_t end, void *scratch) {
    const int64_t groups = j->k_padded / 64, squares = (j->m + 31) / 32, bytes = 64 * width_of(format);
    uint16_t *tiles = scratch;
    float *sums = (float *)(tiles + BLOCK * 4 * TILE);
    for (int64_t g = 0; g < groups; g += BLOCK)
        for (int64_t n = begin; n < end; n += 32) {
            const int64_t next = n + 32 < end ? n + 32 : begin;
            panel p = {j->weight + n * j->row_bytes, end - n < 32 ? end - n : 32, g, groups - g < BLOCK ? groups - g : BLOCK, 0};
            const uint8_t *ahead = j->weight + next * j->row_bytes + (next > n ? g : g + BLOCK) * bytes;
            narrow_rows(j, format, t, &p, 0, 32, 2, BLOCK, tiles);
            for (int64_t c = 0; c < squares; c++) {
                float *own = sums + ((n - begin) / 32 * squares + c) * 4 * SIDE * SIDE;
                const uint16_t *x = (const uint16_t *)j->prepared + c * 32 * j->k_padded + 2 * g * TILE;
                for (int64_t r = 32 * c / squares; r < 32 * (c + 1) / squares; r++)
                    for (int64_t i = 0; i < BLOCK * bytes; i += 64) __builtin_prefetch(ahead + r * j->row_bytes + i, 0, 2);
                if (g) load_sums(own, 64);
                else zero_sums();
                for (int64_t s = 0; s < 2 * p.count; s++)
                    multiply_square(tiles + s * 2 * TILE, x + s * TILE, j->k_padded * SIDE);
                store_sums(own, 64);
                if (g + BLOCK >= groups) write_sums(j, own, n, p.height, 32 * c, 2);
            }
        }
}

TARGET INLINE void rows(const job *j, enum format format, int64_t begin, int64_t stop, void *scratch) {
    const tables t = make_tables();
    const int64_t height = j->m > 32 ? 32 * STRIPS : j->m > SIDE ? 32 : 16 * TALL;
    configure(j);
    for (int64_t n = begin; n < stop; n += height) {
        const int64_t here = stop - n < height ? stop - n : height;
        if (j->m > 32) many(j, format, &t, n, n + here, scratch);
        else if (j->m > SIDE) few(j, format, &t, n, here, 2, 2);
        else few(j, format, &t, n, here, TALL, 1);
    }
    _tile_release();
}

TARGET static void rows_fp8(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, FP8, begin, stop, scratch);
}

TARGET static void rows_bf16(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, BF16, begin, stop, scratch);
}

/* 16 rows of activations, or those that are left, as pairs: [32 columns][pair][row of x][2]. */
TARGET INLINE void pack(const job *j, int64_t m, int placed, void *scratch) {
    const int64_t count = j->m - m < SIDE ? j->m - m : SIDE, side = columns_of(j);
    const __mmask16 mask = (__mmask16)((1u << side) - 1);
    float *wide = scratch;
    uint16_t *narrowed = (uint16_t *)(wide + j->k_padded), *to = (uint16_t *)j->prepared + m * j->k_padded;
    for (int64_t r = 0; r < count; r++) {
        amx_prepare_row(j, m + r, wide);
        narrow_x(wide, j->k_padded, placed, narrowed + r * j->k_padded);
    }
    for (int64_t s = 0; s < j->k_padded / 32; s++) {
        __m512i v[SIDE];
        for (int64_t r = 0; r < SIDE; r++)
            v[r] = r < count ? _mm512_loadu_si512(narrowed + r * j->k_padded + 32 * s) : _mm512_setzero_si512();
        NAME(transpose_words)(v);
        for (int64_t i = 0; i < SIDE; i++) _mm512_mask_storeu_epi32(to + (s * SIDE + i) * side * 2, mask, v[i]);
    }
}

TARGET static void prepare_fp8(const job *j, int64_t m, void *scratch) { pack(j, m, 1, scratch); }

TARGET static void prepare_bf16(const job *j, int64_t m, void *scratch) { pack(j, m, 0, scratch); }

kernel amx_kernel(enum format format) {
    static const kernel made = {.x_bytes = 2, .columns = SIDE, .most = MOST, .piece = 64,
                                .scratch = sizeof(float) + 2 * SIDE, .scratch_row = 32 * STRIPS * sizeof(float)};
    kernel found = made;
    if (format != FP8 && format != BF16) return (kernel){0};
    found.prepare = format == FP8 ? prepare_fp8 : prepare_bf16;
    found.rows = format == FP8 ? rows_fp8 : rows_bf16;
    return found;
}
#else
int amx_allowed(void) { return 0; }

kernel amx_kernel(enum format format) {
    (void)format;
    return (kernel){0};
}
#endif
