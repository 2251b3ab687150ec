/* x86 with AMX (Sapphire Rapids and later): tiles of 16 x 16 sums, each step adding 32 bfloat16 products to each.

   As avx512_bf16.c otherwise, and for the same operands. A sum runs over K in order, alone in its place of a tile,
   whatever stands beside it. */
#define _DEFAULT_SOURCE /* syscall */
#include "job.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "amx.h"
#include "prepare.inc.h"

#define AHEAD 1024 /* bytes to prefetch ahead in each row of W, into the second-level cache: rows of like addresses
                      would crowd one another out of the first */
#define FEW 2      /* groups of 64 columns in a panel that is used once: two panels of two threads stay in one core's
                      first-level cache */
#define BLOCK 3    /* and in one that is used for many rows of x: two threads' and their tiles of x stay there */
#define STRIPS 4   /* for which a stretch of the columns of x stays in the second-level cache */
#define HEIGHT 32  /* rows of W in a strip */
#define MOST 512   /* rows of x: W is read once for so many */

int amx_allowed(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0; /* AMX-BF16, AMX-TILE */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
}

INLINE int64_t columns_of(const job *j) { return j->m < SIDE ? j->m : SIDE; }

/* One step of 32 columns: 32 rows of W against up to 16 of x, `stride` bytes from one pair of columns to the next. */
TARGET INLINE void multiply_narrow(const uint16_t *w, const uint16_t *x, int64_t stride) {
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

/* Ask for the tiles of x of the next step, which lie in the second-level cache: a product waits for its tiles. */
INLINE void expect_square(const uint16_t *x, int64_t x_tile) {
    for (int64_t i = 0; i < TILE; i += 32) {
        __builtin_prefetch(x + i, 0, 3);
        __builtin_prefetch(x + x_tile + i, 0, 3);
    }
}

/* A tile of sums, [16 rows of W from n on][16 rows of x from m on], as `finish` of all of them. */
TARGET INLINE void write_tile(const job *j, const float *sums, int64_t n, int64_t height, int64_t m) {
    __m512i v[SIDE];
    for (int r = 0; r < SIDE; r++) v[r] = _mm512_load_si512(sums + r * SIDE);
    amx_transpose_words(v);
    for (int c = 0; c < SIDE && m + c < j->m; c++) write_row(j, m + c, n, _mm512_castsi512_ps(v[c]), low_mask(height));
}

/* The four tiles of sums: two beneath one another, the others beside. */
TARGET INLINE void write_sums(const job *j, const float *sums, int64_t n, int64_t height, int64_t m) {
    for (int i = 0; i < 4; i++) {
        const int64_t down = i % 2 * SIDE, right = i / 2 * SIDE;
        if (down < height && m + right < j->m)
            write_tile(j, sums + i * SIDE * SIDE, n + down, height - down, m + right);
    }
}

/* The sums of one strip for at most 32 rows of x. */
TARGET INLINE void end_strip(const job *j, int64_t n, int64_t height) {
    float sums[4 * SIDE * SIDE] __attribute__((aligned(64)));
    if (j->m == 1) { /* tiles of one column are what is written */
        _tile_stored(0, sums, 4);
        _tile_stored(1, sums + SIDE, 4);
        for (int64_t r = 0; r < height; r += SIDE)
            write_row(j, 0, n + r, _mm512_load_ps(sums + r), low_mask(height - r));
    } else {
        memset(sums, 0, sizeof sums); /* tiles may be narrower than that */
        store_sums(sums, 64);
        write_sums(j, sums, n, height, 0);
    }
    zero_sums();
}

/* Strips against at most 16 * wide rows of x. A panel is narrowed by a few rows at a time, each time followed by a step
   of the panel before, across strips too: the two kinds of work overlap in the processor. */
TARGET INLINE void few(const job *j, enum format format, const tables *t, int64_t begin, int64_t end, const int wide) {
    const int64_t share = HEIGHT / (2 * FEW);
    uint16_t tiles[2][4 * FEW * TILE] __attribute__((aligned(64)));
    const int64_t groups = j->k_padded / 64, length = j->k * width_of(format), stride = 4 * columns_of(j);
    const int64_t step = wide == 1 ? stride / 2 * SIDE : TILE, panels = (groups + FEW - 1) / FEW;
    const int64_t total = (end - begin + HEIGHT - 1) / HEIGHT * panels;
    panel p = {0}, last = {0};
    zero_sums();
    for (int64_t i = 0; i <= total; i++, last = p) {
        const int64_t n = begin + i / panels * HEIGHT;
        p.first = i % panels * FEW;
        p.count = i == total ? 0 : groups - p.first < FEW ? groups - p.first : FEW;
        p.w = j->weight + n * j->row_bytes;
        p.height = end - n < HEIGHT ? end - n : HEIGHT;
        p.next = p.first * 64 * width_of(format) + AHEAD < length ? AHEAD : AHEAD + HEIGHT * j->row_bytes - length;
        for (int64_t s = 0; s < 2 * FEW; s++) {
            if (p.count) narrow_rows(j, format, t, &p, s * share, (s + 1) * share, FEW, tiles[i % 2]);
            if (s >= 2 * last.count) continue;
            const uint16_t *w = tiles[(i + 1) % 2] + s * 2 * TILE;
            const uint16_t *x = (const uint16_t *)j->prepared + (2 * last.first + s) * step;
            if (wide == 1) multiply_narrow(w, x, stride);
            else multiply_square(w, x, j->k_padded * SIDE);
        }
        if (i && p.first == 0) end_strip(j, n - HEIGHT, last.height);
    }
}

/* Some strips against more than 32 rows of x. A panel is narrowed once and used for all rows of x; between stretches of
   columns the sums, exact as they are, wait in scratch. */
TARGET INLINE void many(const job *j, enum format format, const tables *t, int64_t begin, int64_t end, void *scratch) {
    const int64_t groups = j->k_padded / 64, squares = (j->m + 31) / 32, bytes = 64 * width_of(format);
    uint16_t *tiles = scratch;
    float *sums = (float *)(tiles + BLOCK * 4 * TILE);
    for (int64_t g = 0; g < groups; g += BLOCK)
        for (int64_t n = begin; n < end; n += HEIGHT) {
            const int64_t count = groups - g < BLOCK ? groups - g : BLOCK;
            const int64_t next = n + HEIGHT < end ? n + HEIGHT : begin;
            const int64_t height = end - n < HEIGHT ? end - n : HEIGHT;
            const panel p = {j->weight + n * j->row_bytes, height, g, count, 0};
            const uint8_t *ahead = j->weight + next * j->row_bytes + (next > n ? g : g + BLOCK) * bytes;
            narrow_rows(j, format, t, &p, 0, HEIGHT, BLOCK, tiles);
            for (int64_t c = 0; c < squares; c++) {
                float *own = sums + ((n - begin) / HEIGHT * squares + c) * 4 * SIDE * SIDE;
                const uint16_t *x = (const uint16_t *)j->prepared + c * 32 * j->k_padded + 2 * g * TILE;
                for (int64_t r = HEIGHT * c / squares; r < HEIGHT * (c + 1) / squares; r++)
                    for (int64_t i = 0; i < BLOCK * bytes; i += 64)
                        __builtin_prefetch(ahead + r * j->row_bytes + i, 0, 2);
                if (g) load_sums(own, 64);
                else zero_sums();
                for (int64_t s = 0; s < 2 * count; s++) {
                    expect_square(x + (s + 1) * TILE, j->k_padded * SIDE);
                    multiply_square(tiles + s * 2 * TILE, x + s * TILE, j->k_padded * SIDE);
                }
                store_sums(own, 64);
                if (g + BLOCK >= groups) write_sums(j, own, n, height, 32 * c);
            }
        }
}

TARGET INLINE void rows(const job *j, enum format format, int64_t begin, int64_t end, void *scratch) {
    const tables t = make_tables();
    configure_tiles(columns_of(j)); /* tiles 4 and 5: W; 6 and 7: x, as wide as it has rows */
    if (j->m <= SIDE) few(j, format, &t, begin, end, 1);
    else if (j->m <= 2 * SIDE) few(j, format, &t, begin, end, 2);
    else
        for (int64_t n = begin; n < end; n += STRIPS * HEIGHT)
            many(j, format, &t, n, end - n < STRIPS * HEIGHT ? end : n + STRIPS * HEIGHT, scratch);
    _tile_release();
}

TARGET static void rows_fp8(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, FP8, begin, stop, scratch);
}

TARGET static void rows_bf16(const job *j, int64_t begin, int64_t stop, void *scratch) {
    rows(j, BF16, begin, stop, scratch);
}

/* 16 rows of activations, or those that are left, as pairs: [32 columns][pair][row of x][2]. Rows that are what is
   multiplied are read where they lie. */
TARGET INLINE void pack(const job *j, int64_t m, int placed, void *scratch) {
    const int64_t count = j->m - m < SIDE ? j->m - m : SIDE, side = columns_of(j);
    const __mmask16 mask = (__mmask16)((1u << side) - 1);
    const int as_they_are = !placed && !j->quantise && j->x_type == X_BFLOAT16 && j->k == j->k_padded;
    float *wide = scratch;
    uint16_t *narrowed = (uint16_t *)(wide + j->k_padded), *to = (uint16_t *)j->prepared + m * j->k_padded;
    const uint16_t *from = as_they_are ? (const uint16_t *)j->x + m * j->x_stride : narrowed;
    const int64_t stride = as_they_are ? j->x_stride : j->k_padded;
    for (int64_t r = 0; r < count && !as_they_are; r++) {
        amx_prepare_row(j, m + r, wide);
        narrow_x(wide, j->k_padded, placed, narrowed + r * j->k_padded);
    }
    if (side == 1) {
        memcpy(to, from, (size_t)j->k_padded * 2);
        return;
    }
    for (int64_t s = 0; s < j->k_padded / 32; s++) {
        __m512i v[SIDE];
        for (int64_t r = 0; r < SIDE; r++)
            v[r] = r < count ? _mm512_loadu_si512(from + r * stride + 32 * s) : _mm512_setzero_si512();
        amx_transpose_words(v);
        for (int64_t i = 0; i < SIDE; i++) _mm512_mask_storeu_epi32(to + (s * SIDE + i) * side * 2, mask, v[i]);
    }
}

TARGET static void prepare_fp8(const job *j, int64_t m, void *scratch) { pack(j, m, 1, scratch); }

TARGET static void prepare_bf16(const job *j, int64_t m, void *scratch) { pack(j, m, 0, scratch); }

kernel amx_kernel(enum format format) {
    static const kernel made = {.x_bytes = 2, .columns = SIDE, .most = MOST, .piece = HEIGHT,
                                .scratch = sizeof(float) + 2 * SIDE, .scratch_row = HEIGHT * STRIPS * sizeof(float)};
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
