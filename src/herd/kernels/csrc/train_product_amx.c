/* Products of training on AMX. b is packed a stretch at a time, [SPAN columns][step of 32 sums], and shared; each
   thread packs the rows of a that it takes. Sums of a stretch go on where those of the one before ended, in an order
   that the sizes alone fix: not the number of threads. */
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
#include "train_packing.inc.h"

#define ROWS 256                     /* of a that are packed at a time */
#define DEEP (3 * 1024)              /* bytes of one of them */
#define SHARED ((int64_t)3 << 19)    /* bytes of b that are packed at a time, if that is not too few columns: */
#define NARROW 256
#define SMALL ((int64_t)1 << 18)     /* multiplications: fewer are not worth waking a thread */

/* What the threads share: sums `first` and on of a part, for some of c's columns. */
typedef struct {
    const train_product *p;
    operand a, b;
    int64_t column, columns, rows; /* rows: that a thread takes at a time */
    int planes, begins, ends;      /* bfloat16 of a number; the first and the last stretch of these columns */
    uint16_t *packed;              /* b: [columns / SPAN][steps][planes][2] tiles */
    float *sums;                   /* [m][columns] in whole squares, where c does not hold them */
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

INLINE int64_t packed_size(const stretch *s) { return s->b.steps * s->planes * 2 * TILE; }

/* Columns of b that are rows in memory are dealt out by SPANs, others by steps. */
TARGET INLINE void pack_share(const stretch *s, int64_t n, const int planes) {
    const int64_t end = s->column + spans(s->columns) * SPAN, column = s->column + n * SPAN;
    if (s->b.step == 1) pack(&s->b, column, column + SPAN, 0, s->b.steps, 1, planes, s->packed + n * packed_size(s));
    else pack(&s->b, s->column, end, n, n + 1, 1, planes, s->packed);
}

TARGET static void pack_b(void *data) {
    stretch *s = data;
    const int64_t shares = s->b.step == 1 ? spans(s->columns) : s->b.steps;
    for (int64_t n; (n = atomic_fetch_add(&s->next, 1)) < shares;) {
        if (s->planes == 1) pack_share(s, n, 1);
        else pack_share(s, n, 3);
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

/* A square of sums from c, which holds floats; to c, where it has less than a square there, or holds bfloat16. */
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
    const int64_t wide = spans(s->columns) * SPAN, stride = s->sums ? wide : in_c ? p->c_row : SPAN;
    float *to = aside;
    if (s->sums) to = s->sums + row * wide + n * SPAN;
    else if (in_c) to = (float *)p->c + row * p->c_row + column;
    if (s->begins && !p->add) {
        zero_sums();
    } else {
        if (to == aside) from_c(p, row, column, aside);
        load_square(to, stride);
    }
    multiply(a, s->packed + n * packed_size(s), s->b.steps, planes);
    store_square(to, stride);
    if (to == aside || (s->sums && s->ends)) to_c(p, row, column, to, stride);
}

TARGET INLINE void rows_of(const stretch *s, int64_t row, int64_t end, const int planes, char *scratch) {
    float *aside = (float *)scratch;
    uint16_t *a = (uint16_t *)(scratch + SPAN * SPAN * sizeof(float));
    pack(&s->a, row, row + spans(end - row) * SPAN, 0, s->a.steps, 0, planes, a);
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
    in_parallel(pack_b, s, threads);
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
        for (int64_t first = 0; first < part->k; first += piece) {
            const int64_t steps = spans(least(piece, part->k - first));
            s->a = (operand){part->a, part->a_row, part->a_step, p->m, part->k, first, steps, p->type};
            s->b = (operand){part->b, part->b_step, part->b_row, p->n, part->k, first, steps, p->type};
            s->begins = i == 0 && first == 0;
            s->ends = i + 1 == p->count && first + piece >= part->k;
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
    const size_t of_sums = (size_t)(spans(p->m) * SPAN * wide) * sizeof(float);
    const uintptr_t kept = (uintptr_t)carve(&end, p->c_type == FLOAT32 || sums < 2 ? 0 : of_sums);
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
