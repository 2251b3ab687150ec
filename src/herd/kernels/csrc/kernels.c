/* The entry points: which level of instructions this processor has, and a product dealt out to threads.

   Threads are those of the caller's OpenMP library (torch's own pool): a second pool would spin against the first. It
   is not linked; its GOMP_parallel is handed in by `herd_bind_threads`. Without it, one thread does the work. */
#define _DEFAULT_SOURCE /* madvise */
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "pass.h"
#include "product.h"

#define SMALL ((int64_t)1 << 16) /* weights, in bytes for up to eight rows: less is not worth waking a thread */
#define FEW ((int64_t)1 << 15)   /* activations: less is prepared before a thread wakes */
#define CUTS 8 /* pieces of a thread's rows of W: who is done sooner takes what is left of another's */

typedef void (*parallel_fn)(void (*work)(void *), void *data, unsigned threads, unsigned flags);
static parallel_fn parallel;

EXPORT void herd_bind_threads(void *gomp_parallel) { memcpy(&parallel, &gomp_parallel, sizeof parallel); }

void in_parallel(void (*work)(void *), void *data, int threads) {
    if (threads > 1 && parallel) parallel(work, data, (unsigned)threads, 0);
    else work(data);
}

/* The highest level that this processor and its operating system allow. */
EXPORT int herd_best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
        return PORTABLE;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
        return AVX2;
    if (!(__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi"))) return AVX512;
    return amx_allowed() ? AMX : AVX512_BF16;
#else
    return PORTABLE;
#endif
}

static kernel kernel_of(int level, enum format format, int exact_in_bf16) {
#if defined(__x86_64__)
    if (level == AMX && exact_in_bf16 && amx_kernel(format).rows) return amx_kernel(format);
    if (level >= AVX512_BF16 && exact_in_bf16 && avx512_bf16_kernel(format).rows) return avx512_bf16_kernel(format);
    if (level >= AVX512) return avx512_kernel(format);
    if (level == AVX2) return avx2_kernel(format);
#endif
    (void)level;
    (void)exact_in_bf16;
    return portable_kernel(format);
}

/* What the threads share. Each has a range of its own, which it takes piece by piece, for memory is read ahead from one
   piece to the next; then it helps with the ranges of others. */
typedef struct {
    job j; /* of what all matrices have in common */
    const product *products;
    int count;
    elementwise_fn mix; /* of the results of two matrices where they are done, or NULL */
    kernel kernel;
    int64_t range, piece, end;
    int threads;
    atomic_llong *next; /* [threads] where each range goes on */
    char *scratch;
    size_t scratch_bytes; /* of one thread */
    atomic_int thread;
} shared;

typedef struct {
    int64_t begin, end;
} piece;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The next piece for a thread that has `done` with some ranges, its own first; an empty one where nothing is left. */
static piece take(shared *s, int thread, int *done) {
    for (; *done < s->threads; ++*done) {
        const int at = (thread + *done) % s->threads;
        const int64_t end = least((at + 1) * s->range, s->end), begin = atomic_fetch_add(&s->next[at], s->piece);
        if (begin < end) return (piece){begin, least(begin + s->piece, end)};
    }
    return (piece){0, 0};
}

static void prepare_pieces(void *data) {
    shared *s = data;
    const int thread = atomic_fetch_add(&s->thread, 1);
    int done = 0;
    for (piece p; (p = take(s, thread, &done)).end;)
        s->kernel.prepare(&s->j, p.begin, s->scratch + (size_t)thread * s->scratch_bytes);
}

/* Some rows of one matrix. */
static void rows_of(const shared *s, const product *p, int64_t begin, int64_t end, void *scratch) {
    job j = s->j;
    if (begin >= end) return;
    j.weight = p->weight;
    j.row_bytes = p->row_bytes;
    j.weight_scale = p->scale;
    j.out = p->out;
    j.n = j.out_stride = p->n;
    s->kernel.rows(&j, begin, end, scratch);
}

/* The same rows of two matrices, and what is made of their results while a cache has them. */
static void mixed_rows(const shared *s, int64_t begin, int64_t end, void *scratch) {
    const product *gate = s->products, *up = gate + 1;
    const int64_t size = x_size(s->j.x_type);
    for (const product *p = gate; p <= up; p++) rows_of(s, p, begin, end, scratch);
    const elementwise e = {.x = (char *)gate->out + begin * size, .y = (char *)up->out + begin * size,
                           .out = (char *)gate->out + begin * size, .width = end - begin, .x_stride = gate->n,
                           .y_stride = up->n, .type = s->j.x_type == X_BFLOAT16 ? BFLOAT16 : FLOAT32};
    s->mix(&e, 0, s->j.m);
}

INLINE int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Pieces count the rows of all matrices, those of each up to whole units. */
static void rows_pieces(void *data) {
    shared *s = data;
    const int thread = atomic_fetch_add(&s->thread, 1);
    void *scratch = s->scratch + (size_t)thread * s->scratch_bytes;
    int done = 0;
    for (piece p; (p = take(s, thread, &done)).end;) {
        if (s->mix) {
            mixed_rows(s, p.begin, least(p.end, s->products->n), scratch);
            continue;
        }
        for (int i = 0; i < s->count; i++) {
            const int64_t n = s->products[i].n, rows = whole(n, s->kernel.piece);
            rows_of(s, s->products + i, p.begin > 0 ? p.begin : 0, least(p.end, n), scratch);
            p.begin -= rows;
            p.end -= rows;
        }
    }
}

/* Pieces are whole units, `cuts` of them a range or fewer; 0: as many as there are units. */
static void run(shared *s, void (*work)(void *), int64_t end, int64_t unit, int64_t cuts, int threads) {
    const int64_t units = (end + unit - 1) / unit, share = (units + threads - 1) / threads;
    s->end = end;
    s->range = share * unit;
    s->piece = cuts ? (share + cuts - 1) / cuts * unit : unit;
    s->threads = threads;
    for (int i = 0; i < threads; i++) atomic_store(&s->next[i], i * s->range);
    atomic_store(&s->thread, 0);
    in_parallel(work, s, threads);
}

static void multiply(shared *s, int threads) {
    const int64_t unit = s->kernel.piece;
    int64_t rows = 0;
    for (int i = 0; i < (s->mix ? 1 : s->count); i++) rows += whole(s->products[i].n, unit);
    run(s, prepare_pieces, s->j.m, s->kernel.columns, 0, s->j.m * s->j.k < FEW ? 1 : threads);
    run(s, rows_pieces, rows, unit, CUTS, threads);
}

#define LARGE ((size_t)1 << 21) /* bytes of a large page */

/* The room of the last product, kept for the next: fresh memory costs a fault for every page of it. Its first line holds
   its size. Whoever finds none makes one of his own. */
static _Atomic(void *) spare;

char *take_room(size_t bytes) {
    void *kept = atomic_exchange(&spare, NULL);
    if (kept && *(size_t *)kept >= bytes) return kept;
    free(kept);
    const size_t unit = bytes < LARGE ? 4096 : LARGE, size = (bytes + unit - 1) / unit * unit;
    kept = aligned_alloc(unit, size);
#if defined(MADV_HUGEPAGE)
    if (kept && unit == LARGE) madvise(kept, size, MADV_HUGEPAGE);
#endif
    if (kept) *(size_t *)kept = size;
    return kept;
}

void give_room(void *room) { free(atomic_exchange(&spare, room)); }

/* Room for a product of at most `block` rows of x at a time; NULL where memory is short. */
static char *lay_out(shared *s, int64_t block, int threads) {
    const int64_t columns = s->kernel.columns, rows = (block / columns + 2) * columns, k = s->j.k_padded;
    s->scratch_bytes = lined(SCRATCH + s->kernel.scratch * (size_t)k + s->kernel.scratch_row * (size_t)rows);
    const size_t of_x = (size_t)(rows * k) * s->kernel.x_bytes, of_scales = (size_t)block * sizeof(float),
                 of_scratch = s->scratch_bytes * (size_t)threads, of_next = sizeof *s->next * (size_t)threads;
    char *room = take_room(64 + lined(of_x) + lined(of_scales) + lined(of_next) + of_scratch);
    if (!room) return room;
    uintptr_t at = (uintptr_t)room + 64;
    s->next = carve(&at, of_next);
    s->j.x_scale = carve(&at, of_scales);
    s->scratch = carve(&at, of_scratch);
    s->j.prepared = carve(&at, of_x);
    return room;
}

int multiply_all(int level, int threads, int64_t m, int64_t x_stride, const product *products, int count, int mixed) {
    const product *first = products;
    const enum xtype type = (enum xtype)first->x_type;
    const int64_t k = first->k, size = x_size(type);
    shared s = {.j = {.x_type = type, .x_stride = x_stride, .quantise = first->quantise, .bound = first->bound, .k = k,
                      .k_padded = whole(k, GROUP)},
                .count = count, .mix = mixed ? pass_of(level).elementwise[SWIGLU] : NULL,
                .kernel = kernel_of(level, (enum format)first->format, first->quantise || type == X_BFLOAT16)};
    const int64_t block = least(m, s.kernel.most);
    product now[MOST_TOGETHER];
    int64_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += products[i].n * products[i].row_bytes;
    if (bytes * ((m + 7) / 8) < SMALL || threads < 1) threads = 1;
    char *room = lay_out(&s, block, threads);
    if (!room) return 1;
    s.products = now;
    for (int64_t row = 0; row < m; row += block) {
        s.j.m = least(m - row, block);
        s.j.x = (const char *)first->x + row * x_stride * size;
        for (int i = 0; i < count; i++) {
            now[i] = products[i];
            now[i].out = (char *)products[i].out + row * products[i].n * size;
        }
        multiply(&s, threads);
    }
    give_room(room);
    return 0;
}

/* out [m, n] = x [m, k] W^T in the type of x. `scale` [n] or NULL; `quantise` makes activations e4m3, bounded.
   Returns 0, or 1 where memory is short. The caller has checked every size. */
EXPORT int herd_linear(int level, int format, int threads, int64_t m, int64_t n, int64_t k, const void *x, int x_type,
                       int64_t x_stride, const void *weight, int64_t row_bytes, const float *scale, int quantise,
                       float bound, void *out) {
    const product p = {x, weight, scale, out, n, k, row_bytes, format, x_type, quantise, bound};
    return multiply_all(level, threads, m, x_stride, &p, 1, 0);
}
