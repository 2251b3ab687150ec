/* Norms, SwiGLU and rotary positions, rows of tokens dealt out to threads. */
#include <stdatomic.h>

#include "pass.h"

#define PIECE 16                 /* rows that a thread takes at most */
#define SMALL ((int64_t)1 << 16) /* numbers: less is not worth waking a thread */

typedef struct {
    const elementwise *e;
    elementwise_fn work;
    int64_t rows, piece;
    atomic_llong next;
} shared;

static void pieces(void *data) {
    shared *s = data;
    for (int64_t n; (n = atomic_fetch_add(&s->next, s->piece)) < s->rows;)
        s->work(s->e, n, n + s->piece < s->rows ? n + s->piece : s->rows);
}

/* The caller has checked every size. */
EXPORT void herd_elementwise(int level, int threads, int kind, int64_t rows, const elementwise *e) {
    shared s = {.e = e, .work = pass_of(level).elementwise[kind], .rows = rows};
    const int64_t width = kind == ROTATE ? e->width * (e->heads + e->groups) : e->width;
    if (threads < 1 || rows * width < SMALL) threads = 1;
    s.piece = (rows + threads - 1) / threads;
    if (s.piece > PIECE) s.piece = PIECE;
    in_parallel(pieces, &s, threads);
}
