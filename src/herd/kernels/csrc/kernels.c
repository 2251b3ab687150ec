/* The entry points: which level of instructions this processor has, and a product dealt out to threads.

   Threads are those of the caller's OpenMP library (torch's own pool): a second pool would spin against the first. It
   is not linked; its GOMP_parallel is handed in by `herd_bind_threads`. Without it, one thread does the work. */
#define _DEFAULT_SOURCE /* madvise */
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "job.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

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
    const job *j;
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
        s->kernel.prepare(s->j, p.begin, s->scratch + (size_t)thread * s->scratch_bytes);
}

static void rows_pieces(void *data) {
    shared *s = data;
    const int thread = atomic_fetch_add(&s->thread, 1);
    int done = 0;
    for (piece p; (p = take(s, thread, &done)).end;)
        s->kernel.rows(s->j, p.begin, p.end, s->scratch + (size_t)thread * s->scratch_bytes);
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
    run(s, prepare_pieces, s->j->m, s->kernel.columns, 0, s->j->m * s->j->k < FEW ? 1 : threads);
    run(s, rows_pieces, s->j->n, s->kernel.piece, CUTS, threads);
}

#define LARGE ((size_t)1 << 21) /* bytes of a large page */

/* The room of the last product, kept for the next: fresh memory costs a fault for every page of it. Its first line holds
   its size. Whoever finds none makes one of his own. */
static _Atomic(void *) spare;

static size_t lined(size_t bytes) { return (bytes + 63) / 64 * 64; }

static char *take_room(size_t bytes) {
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

static void give_room(void *room) { free(atomic_exchange(&spare, room)); }

/* The next `bytes` of a room. */
static void *part(char **room, size_t bytes) {
    char *taken = *room;
    *room += lined(bytes);
    return taken;
}

/* out [m, n] = x [m, k] W^T in the type of x. `scale` [n] or NULL; `quantise` makes activations e4m3, bounded.
   Returns 0, or 1 where memory is short. The caller has checked every size. */
EXPORT int herd_linear(int level, int format, int threads, int64_t m, int64_t n, int64_t k, const void *x, int x_type,
                       int64_t x_stride, const void *weight, int64_t row_bytes, const float *scale, int quantise,
                       float bound, void *out) {
    job j = {.weight = weight, .row_bytes = row_bytes, .weight_scale = scale, .x_type = (enum xtype)x_type,
             .x_stride = x_stride, .quantise = quantise, .bound = bound, .n = n, .k = k, .out_stride = n};
    shared s = {.j = &j, .kernel = kernel_of(level, (enum format)format, quantise || x_type == X_BFLOAT16)};
    const int64_t size = x_type == X_BFLOAT16 ? 2 : 4, columns = s.kernel.columns,
                  block = m < s.kernel.most ? m : s.kernel.most;
    const int64_t rows = (block / columns + 2) * columns;
    j.k_padded = (k + GROUP - 1) / GROUP * GROUP;
    if (n * row_bytes * ((m + 7) / 8) < SMALL || threads < 1) threads = 1;
    s.scratch_bytes = lined(SCRATCH + s.kernel.scratch * (size_t)j.k_padded + s.kernel.scratch_row * (size_t)rows);
    const size_t of_x = (size_t)(rows * j.k_padded) * s.kernel.x_bytes, of_scales = (size_t)block * sizeof(float),
                 of_scratch = s.scratch_bytes * (size_t)threads, of_next = sizeof *s.next * (size_t)threads;
    char *room = take_room(64 + lined(of_x) + lined(of_scales) + lined(of_next) + of_scratch), *at = room + 64;
    if (!room) return 1;
    s.next = part(&at, of_next);
    j.x_scale = part(&at, of_scales);
    s.scratch = part(&at, of_scratch);
    j.prepared = part(&at, of_x);
    for (int64_t first = 0; first < m; first += block) {
        j.m = m - first < block ? m - first : block;
        j.x = (const char *)x + first * x_stride * size;
        j.out = (char *)out + first * n * size;
        multiply(&s, threads);
    }
    give_room(room);
    return 0;
}
