/* The entry points of training: rows, or attention's rows by groups, dealt out to threads. */
#include <stdatomic.h>
#include <stdlib.h>

#include "train.h"
#include "train_product.h"

#define SMALL ((int64_t)1 << 15) /* numbers: less is not worth waking a thread */

training_level training_of(int level) {
#if defined(__x86_64__)
    if (level >= AVX512) return avx512_training();
    if (level == AVX2) return avx2_training();
#endif
    (void)level;
    return portable_training();
}

typedef struct {
    const training *t;
    training_fn work;
    int64_t rows;
    atomic_llong next;
} shared_rows;

static void chunks(void *data) {
    shared_rows *s = data;
    for (int64_t n; (n = atomic_fetch_add(&s->next, CHUNK)) < s->rows;)
        s->work(s->t, n, n + CHUNK < s->rows ? n + CHUNK : s->rows);
}

/* The caller has checked every size. */
EXPORT void herd_training(int level, int threads, int kind, int64_t rows, const training *t) {
    shared_rows s = {.t = t, .work = training_of(level).work[kind], .rows = rows};
    const int64_t width = kind == TURN ? t->width * t->heads : t->width;
    in_parallel(chunks, &s, rows * width < SMALL || rows <= CHUNK ? 1 : threads);
}

typedef struct {
    const train_attention *a;
    attention_work work;
    char *scratch;
    size_t scratch_bytes; /* of one thread */
    atomic_llong next;
    atomic_int thread;
} shared_tasks;

static void tasks(void *data) {
    shared_tasks *s = data;
    char *scratch = s->scratch + (size_t)atomic_fetch_add(&s->thread, 1) * s->scratch_bytes;
    for (int64_t n; (n = atomic_fetch_add(&s->next, 1)) < s->a->rows * s->a->groups;) s->work.run(s->a, n, scratch);
}

static attention_work attention_of(int level, int type, int backward) {
    if (type == FLOAT32) return training_of(level).attention[backward];
    if (type != BFLOAT16 || level != AMX) return (attention_work){0};
    return backward ? amx_train_backward() : amx_train_forward();
}

/* Whether this level has attention for training in this type. */
EXPORT int herd_train_attention_able(int level, int type) { return attention_of(level, type, 0).run != NULL; }

/* Returns 0, or 1 where memory is short. The caller has checked every size. */
EXPORT int herd_train_attention(int level, int threads, int backward, const train_attention *a) {
    shared_tasks s = {.a = a, .work = attention_of(level, a->type, backward)};
    s.scratch_bytes = s.work.scratch(a);
    s.scratch = aligned_alloc(64, s.scratch_bytes * (size_t)threads);
    if (!s.scratch) return 1;
    in_parallel(tasks, &s, threads);
    free(s.scratch);
    return 0;
}

/* Whether this level multiplies numbers of this type for training. */
EXPORT int herd_train_product_able(int level, int type) {
    return level == AMX && (type == FLOAT32 || type == BFLOAT16) && amx_multiplies();
}

/* Returns 0, or 1 where memory is short. The caller has asked, and checked every size. */
EXPORT int herd_train_product(int threads, const train_product *p) { return amx_train_product(threads, p); }
