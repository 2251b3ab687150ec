/* Products of training on AMX. b is packed a stretch at a time, [SPAN columns][step of 32 sums], and shared; each thread
   packs the rows of a that it takes. Sums of a stretch go on where those of the one before ended, in an order that the
   sizes alone fix: not the number of threads. */
#include "train_product.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>
#include <stdatomic.h>

#define TARGET                                                                                                         \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define NAME(name) product_##name
#include "tiles.inc.h"
#include "squares.inc.h"
#include "transpose.inc.h"

#define SPAN 32                      /* rows and columns of a square of sums */
#define ROWS 256                     /* of a that are packed at a time */
#define DEEP (3 * 1024)              /* bytes of one of them */
#define SHARED ((int64_t)3 << 19)    /* bytes of b that are packed at a time, if that is not too few columns: */
#define NARROW 256
#define SMALL ((int64_t)1 << 18)     /* multiplications: fewer are not worth waking a thread */

/* Numbers (r, l) of a, or of b on its side, at r * row + l * step: sums are over l. */
typedef struct {
    const char *at;
    int64_t row, step, rows, k;
    int type;
} operand;

/* What the threads share: sums `first` and on of a part, for some of c's columns. */
typedef struct {
    const train_product *p;
    operand a, b;
    int64_t first, steps, column, columns, rows; /* rows: that a thread takes at a time */
    int planes, begins, ends;                    /* bfloat16 of a number; the first and the last stretch of these columns */
    uint16_t *packed;                            /* b: [columns / SPAN][steps][planes][2] tiles */
    float *sums;                                 /* [m][columns] in whole squares, where c does not hold them */
    char *scratch;
    size_t scratch_bytes; /* of one thread */
    atomic_llong next;
    atomic_int thread;
} stretch;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t spans(int64_t n) { return (n + SPAN - 1) / SPAN; }

/* Whole SPANs, so that pieces of that size are as equal as can be and none is above `most`. */
INLINE int64_t piece_of(int64_t n, int64_t most) {
    const int64_t pieces = (n + most - 1) / most;
    return pieces ? spans((n + pieces - 1) / pieces) * SPAN : SPAN;
}

INLINE __mmask16 lanes(int64_t count) { return count >= SIDE ? 0xffff : count > 0 ? (__mmask16)((1u << count) - 1) : 0; }

TARGET INLINE __m512 widened(__m256i half) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16); }

TARGET INLINE __m512 read(const operand *o, int64_t r, int64_t l, __mmask16 which) {
    const int64_t at = r * o->row + l * o->step;
    if (o->type == FLOAT32) return _mm512_maskz_loadu_ps(which, (const float *)o->at + at);
    return widened(_mm256_maskz_loadu_epi16(which, (const uint16_t *)o->at + at));
}

/* 32 numbers, each as `planes` bfloat16; one plane is two tiles behind the other. */
TARGET INLINE void split(__m512 low, __m512 high, const __m512i *order, const int planes, uint16_t *to) {
    for (int plane = 0; plane < planes; plane++) {
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_store_si512(to + plane * 2 * TILE, order ? _mm512_permutexvar_epi16(*order, both) : both);
        low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(both)));
        high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64(both, 1)));
    }
}

/* Tiles [16 r][32 l] where the sums of a row follow one another. */
TARGET INLINE void fill_along(const operand *o, int64_t r, int64_t l, const int planes, uint16_t *to) {
    for (int64_t i = 0; i < SIDE; i++) {
        const int there = r + i < o->rows;
        const __mmask16 low = there ? lanes(o->k - l) : 0, high = there ? lanes(o->k - l - SIDE) : 0;
        split(read(o, r + i, l, low), read(o, r + i, l + SIDE, high), NULL, planes, to + 32 * i);
    }
}

/* Tiles [pair of l][16 r][2] where rows follow one another. */
TARGET INLINE void fill_pairs(const operand *o, int64_t r, int64_t l, const __m512i *order, const int planes,
                              uint16_t *to) {
    const __mmask16 which = lanes(o->rows - r);
    for (int64_t i = 0; i < SIDE; i++) {
        const int64_t at = l + 2 * i;
        const __m512 one = read(o, r, at, at < o->k ? which : 0), other = read(o, r, at + 1, at + 1 < o->k ? which : 0);
        split(one, other, order, planes, to + 32 * i);
    }
}

TARGET INLINE void lay_on_side(const int planes, uint16_t *tile) {
    for (int plane = 0; plane < planes; plane++, tile += 2 * TILE) {
        __m512i v[SIDE];
        for (int i = 0; i < SIDE; i++) v[i] = _mm512_load_si512(tile + 32 * i);
        NAME(transpose_words)(v);
        for (int i = 0; i < SIDE; i++) _mm512_store_si512(tile + 32 * i, v[i]);
    }
}

/* Tiles [16 r][32 l] where rows follow one another: of floats their squares are turned before there are three of each. */
TARGET INLINE void fill_across(const operand *o, int64_t r, int64_t l, const __m512i *order, const int planes,
                               uint16_t *to) {
    if (planes == 1) {
        fill_pairs(o, r, l, order, planes, to);
        lay_on_side(planes, to);
        return;
    }
    __m512i low[SIDE], high[SIDE];
    const __mmask16 which = lanes(o->rows - r);
    for (int64_t i = 0; i < SIDE; i++) {
        low[i] = (__m512i)read(o, r, l + i, l + i < o->k ? which : 0);
        high[i] = (__m512i)read(o, r, l + SIDE + i, l + SIDE + i < o->k ? which : 0);
    }
    NAME(transpose_words)(low);
    NAME(transpose_words)(high);
    for (int64_t i = 0; i < SIDE; i++) split((__m512)low[i], (__m512)high[i], NULL, planes, to + 32 * i);
}

/* Tiles [pair of l][16 r][2] where sums do. */
TARGET INLINE void fill_on_side(const operand *o, int64_t r, int64_t l, const int planes, uint16_t *to) {
    fill_along(o, r, l, planes, to);
    lay_on_side(planes, to);
}

/* SPAN rows of an operand by all steps of the stretch: [steps][planes][2] tiles. */
TARGET INLINE void pack(const stretch *s, const operand *o, int64_t r, int of_b, const int planes, uint16_t *to) {
    uint16_t turn[32];
    for (int i = 0; i < 32; i++) turn[i] = (uint16_t)(i / 2 + i % 2 * 16);
    const __m512i order = _mm512_loadu_si512(turn);
    for (int64_t step = 0; step < s->steps; step++, to += planes * 2 * TILE)
        for (int64_t half = 0; half < 2; half++) {
            const int64_t l = s->first + step * 32, row = r + half * SIDE;
            uint16_t *at = to + half * TILE;
            if (of_b && o->step == 1) fill_on_side(o, row, l, planes, at);
            else if (of_b) fill_pairs(o, row, l, &order, planes, at);
            else if (o->step == 1) fill_along(o, row, l, planes, at);
            else fill_across(o, row, l, &order, planes, at);
        }
}

INLINE int64_t packed_size(const stretch *s) { return s->steps * s->planes * 2 * TILE; }

TARGET static void pack_panels(void *data) {
    stretch *s = data;
    for (int64_t n; (n = atomic_fetch_add(&s->next, 1)) < spans(s->columns);) {
        uint16_t *to = s->packed + n * packed_size(s);
        if (s->planes == 1) pack(s, &s->b, s->column + n * SPAN, 1, 1, to);
        else pack(s, &s->b, s->column + n * SPAN, 1, 3, to);
    }
}

/* Two tiles of a above one another, or of b beside one another. */
TARGET INLINE void take_a(const uint16_t *a) {
    _tile_loadd(4, a, 64);
    _tile_loadd(5, a + TILE, 64);
}

TARGET INLINE void take_b(const uint16_t *b) {
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + TILE, 64);
}

/* Adds to the square of sums. Each pair of planes shares one with the pair before. */
TARGET INLINE void multiply(const uint16_t *a, const uint16_t *b, int64_t steps, const int planes) {
    const int64_t plane = 2 * TILE;
    for (int64_t step = 0; step < steps; step++, a += planes * plane, b += planes * plane) {
        if (planes == 3) {
            take_a(a + 2 * plane), take_b(b), multiply_square();
            take_a(a + plane), multiply_square();
            take_b(b + plane), multiply_square();
            take_a(a), multiply_square();
            take_b(b + 2 * plane), multiply_square();
            take_b(b), multiply_square();
        } else {
            take_a(a), take_b(b), multiply_square();
        }
    }
}

/* A square of sums from c, which holds floats, or to c, where less than a square of it is there or it holds bfloat16. */
TARGET INLINE void from_c(const train_product *p, int64_t row, int64_t column, float *to) {
    for (int64_t i = 0; i < SPAN && row + i < p->m; i++)
        for (int64_t j = 0; j < SPAN; j += SIDE)
            _mm512_store_ps(to + i * SPAN + j, _mm512_maskz_loadu_ps(lanes(p->n - column - j), (const float *)p->c +
                                                                         (row + i) * p->c_row + column + j));
}

TARGET INLINE void to_c(const train_product *p, int64_t row, int64_t column, const float *from, int64_t stride) {
    for (int64_t i = 0; i < SPAN && row + i < p->m; i++)
        for (int64_t j = 0; j < SPAN; j += SIDE) {
            const int64_t at = (row + i) * p->c_row + column + j;
            const __m512 sums = _mm512_loadu_ps(from + i * stride + j);
            const __mmask16 which = lanes(p->n - column - j);
            if (p->c_type == FLOAT32) _mm512_mask_storeu_ps((float *)p->c + at, which, sums);
            else _mm256_mask_storeu_epi16((uint16_t *)p->c + at, which, (__m256i)_mm512_cvtneps_pbh(sums));
        }
}

TARGET INLINE void square(const stretch *s, const uint16_t *a, int64_t row, int64_t n, const int planes, float *aside) {
    const train_product *p = s->p;
    const int64_t column = s->column + n * SPAN;
    const int in_c = p->c_type == FLOAT32 && row + SPAN <= p->m && column + SPAN <= p->n;
    float *to = s->sums ? s->sums + row * spans(s->columns) * SPAN + n * SPAN : in_c ? (float *)p->c + row * p->c_row + column : aside;
    const int64_t stride = s->sums ? spans(s->columns) * SPAN : in_c ? p->c_row : SPAN;
    if (s->begins && !p->add) {
        zero_sums();
    } else {
        if (to == aside) from_c(p, row, column, aside);
        load_square(to, stride);
    }
    multiply(a, s->packed + n * packed_size(s), s->steps, planes);
    store_square(to, stride);
    if (to == aside || (s->sums && s->ends)) to_c(p, row, column, to, stride);
}

TARGET INLINE void rows_of(const stretch *s, int64_t row, int64_t end, const int planes, char *scratch) {
    float *aside = (float *)scratch;
    uint16_t *a = (uint16_t *)(scratch + SPAN * SPAN * sizeof(float));
    for (int64_t r = row; r < end; r += SPAN) pack(s, &s->a, r, 0, planes, a + (r - row) / SPAN * packed_size(s));
    for (int64_t n = 0; n < spans(s->columns); n++)
        for (int64_t r = row; r < end; r += SPAN) square(s, a + (r - row) / SPAN * packed_size(s), r, n, planes, aside);
}

TARGET static void multiply_rows(void *data) {
    stretch *s = data;
    char *scratch = s->scratch + (size_t)atomic_fetch_add(&s->thread, 1) * s->scratch_bytes;
    configure_tiles(SIDE);
    for (int64_t row; (row = atomic_fetch_add(&s->next, s->rows)) < s->p->m;) {
        const int64_t end = least(row + s->rows, s->p->m);
        if (s->planes == 1) rows_of(s, row, end, 1, scratch);
        else rows_of(s, row, end, 3, scratch);
    }
    _tile_release();
}

static void run(stretch *s, int threads) {
    atomic_store(&s->next, 0);
    in_parallel(pack_panels, s, threads);
    atomic_store(&s->next, 0);
    atomic_store(&s->thread, 0);
    in_parallel(multiply_rows, s, threads);
}

/* All sums of some columns. */
static void columns_of(stretch *s, int64_t deep, int threads) {
    const train_product *p = s->p;
    for (int64_t i = 0; i < p->count; i++) {
        const train_part *part = p->parts + i;
        const int64_t piece = piece_of(part->k, deep);
        s->a = (operand){part->a, part->a_row, part->a_step, p->m, part->k, p->type};
        s->b = (operand){part->b, part->b_step, part->b_row, p->n, part->k, p->type};
        for (s->first = 0; s->first < part->k; s->first += piece) {
            s->steps = spans(least(piece, part->k - s->first));
            s->begins = i == 0 && s->first == 0;
            s->ends = i + 1 == p->count && s->first + piece >= part->k;
            run(s, threads);
        }
    }
}

int amx_train_product(int threads, const train_product *p) {
    stretch s = {.p = p, .planes = p->type == FLOAT32 ? 3 : 1};
    const int64_t deep = DEEP / (2 * s.planes) / SPAN * SPAN;
    int64_t longest = 0, sums = 0;
    for (int64_t i = 0; i < p->count; i++) {
        longest = piece_of(p->parts[i].k, deep) > longest ? piece_of(p->parts[i].k, deep) : longest;
        sums += (p->parts[i].k + deep - 1) / deep;
    }
    if (threads < 1 || p->m * p->n * longest < SMALL) threads = 1;
    const int64_t bytes = longest * s.planes * 2, fit = SHARED / bytes / SPAN * SPAN;
    const int64_t wide = piece_of(p->n, fit > NARROW ? fit : NARROW);
    s.rows = least(ROWS, spans((p->m + 2 * threads - 1) / (2 * threads)) * SPAN);
    s.scratch_bytes = SPAN * SPAN * sizeof(float) + (size_t)(s.rows * bytes);
    uintptr_t end = 64; /* its first line holds the room's size */
    const uintptr_t packed = (uintptr_t)carve(&end, (size_t)(wide * bytes));
    const uintptr_t kept = (uintptr_t)carve(&end, p->c_type == FLOAT32 || sums < 2 ? 0 : (size_t)(spans(p->m) * SPAN * wide) * sizeof(float));
    const uintptr_t scratch = (uintptr_t)carve(&end, s.scratch_bytes * (size_t)threads);
    char *room = take_room(end);
    if (!room) return 1;
    s.packed = (uint16_t *)(room + packed);
    s.sums = scratch > kept ? (float *)(room + kept) : NULL;
    s.scratch = room + scratch;
    for (s.column = 0; s.column < p->n; s.column += wide) {
        s.columns = least(wide, p->n - s.column);
        columns_of(&s, deep, threads);
    }
    give_room(room);
    return 0;
}

int amx_multiplies(void) { return 1; }
#else
int amx_train_product(int threads, const train_product *p) {
    (void)threads;
    (void)p;
    return 1;
}

int amx_multiplies(void) { return 0; }
#endif
