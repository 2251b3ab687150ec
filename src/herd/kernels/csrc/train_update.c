/* The entry point of a training step's end: portions of tensors dealt out to threads. */
#include <stdatomic.h>

#include "train.h"

typedef struct {
    const update *u;
    update_fn work;
    int64_t portions;
    atomic_llong next;
} shared_portions;

INLINE int64_t portions_of(const updated *t) { return (t->count + PORTION - 1) / PORTION; }

static void portions(void *data) {
    shared_portions *s = data;
    const updated *t = s->u->tensors;
    int64_t first = 0; /* portion of the tensor */
    for (int64_t n; (n = atomic_fetch_add(&s->next, 1)) < s->portions;) {
        for (; n - first >= portions_of(t); t++) first += portions_of(t);
        const int64_t begin = (n - first) * PORTION, end = begin + PORTION < t->count ? begin + PORTION : t->count;
        const double squares = s->work(s->u, t, begin, end);
        if (s->u->squares) s->u->squares[n] = squares;
    }
}

/* The caller has checked every size. */
EXPORT void herd_train_update(int level, int threads, const update *u) {
    shared_portions s = {.u = u, .work = training_of(level).update};
    for (int64_t i = 0; i < u->count; i++) s.portions += portions_of(u->tensors + i);
    in_parallel(portions, &s, s.portions > 2 ? threads : 1);
}
