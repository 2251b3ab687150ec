/* The entry points: which level of instructions this processor has, and a product dealt out to threads.

   Threads are those of the caller's OpenMP library (torch's own pool): a second pool would spin against the first. It
   is not linked; its GOMP_parallel is handed in by `herd_bind_threads`. Without it, one thread does the work. */
#include <stdatomic.h>
#include <stdlib.h>

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

static void *room(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64); }

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
    s.scratch_bytes = SCRATCH + s.kernel.scratch * (size_t)j.k_padded + s.kernel.scratch_row * (size_t)rows;
    j.prepared = room((size_t)(rows * j.k_padded) * s.kernel.x_bytes);
    j.x_scale = room((size_t)block * sizeof(float));
    s.scratch = room(s.scratch_bytes * (size_t)threads);
    s.next = room(sizeof *s.next * (size_t)threads);
    const int failed = !j.prepared || !j.x_scale || !s.scratch || !s.next;
    for (int64_t first = 0; first < m && !failed; first += block) {
        j.m = m - first < block ? m - first : block;
        j.x = (const char *)x + first * x_stride * size;
        j.out = (char *)out + first * n * size;
        multiply(&s, threads);
    }
    free(j.prepared);
    free(j.x_scale);
    free(s.scratch);
    free(s.next);
    return failed;
}
