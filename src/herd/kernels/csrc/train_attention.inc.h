/* Attention for training in float, at each level; the walk is that of train_forward_amx.c and train_backward_amx.c: squares
   of SPAN queries by SPAN keys, scores on their side, [key][query]. Needs vectors.inc.h and train_attention.h. */

#define ACROSS (SPAN / LANES)            /* vectors of a row of SPAN numbers */
#define DOWN (LANES >= 16 ? 8 : 2)       /* rows of sums that stay in registers; divides SPAN */

/* to[i][0 .. SPAN) = or += sum over n of a[i * row + n * step] * b[n * next .. + SPAN), for `rows` i: whole DOWNs. */
TARGET INLINE void NAME(product)(const float *a, int64_t row, int64_t step, const float *b, int64_t next, int64_t count,
                                 int64_t rows, int add, float *to, int64_t stride) {
    for (int64_t first = 0; first < rows; first += DOWN, a += DOWN * row, to += DOWN * stride) {
        VEC sums[DOWN][ACROSS];
        for (int i = 0; i < DOWN; i++)
            for (int v = 0; v < ACROSS; v++) sums[i][v] = add ? NAME(load)(to + i * stride + v * LANES) : SET1(0.0f);
        for (int64_t n = 0; n < count; n++) {
            VEC across[ACROSS];
            for (int v = 0; v < ACROSS; v++) across[v] = NAME(load)(b + n * next + v * LANES);
            for (int i = 0; i < DOWN; i++) {
                const VEC one = SET1(a[i * row + n * step]);
                for (int v = 0; v < ACROSS; v++) sums[i][v] = FMA(one, across[v], sums[i][v]);
            }
        }
        for (int i = 0; i < DOWN; i++)
            for (int v = 0; v < ACROSS; v++) NAME(store)(to + i * stride + v * LANES, sums[i][v]);
    }
}

/* [rows][columns], whole vectors of both, on their side. */
TARGET INLINE void NAME(turn_over)(const float *from, int64_t stride, int64_t rows, int64_t columns, float *to,
                                   int64_t to_stride) {
    for (int64_t r = 0; r < rows; r += LANES)
        for (int64_t c = 0; c < columns; c += LANES) {
            VEC v[LANES];
            for (int i = 0; i < LANES; i++) v[i] = NAME(load)(from + (r + i) * stride + c);
            TRANSPOSE(v);
            for (int i = 0; i < LANES; i++) NAME(store)(to + (c + i) * to_stride + r, v[i]);
        }
}

TARGET INLINE INTS NAME(sees)(const queries *q, int v, int64_t key) {
    INTS starts, places;
    memcpy(&starts, q->starts + v * LANES, sizeof starts);
    memcpy(&places, q->places + v * LANES, sizeof places);
    return (starts <= (int32_t)key) & (places >= (int32_t)key);
}

/* A head of a row of tokens, zeros behind its end. */
TARGET static void NAME(gather)(const train_attention *a, const void *all, int64_t at, int64_t stride, float *to) {
    const float *from = (const float *)all + at;
    const int64_t behind = padded(a->length) - a->length;
    for (int64_t n = 0; n < a->length; n++) memcpy(to + n * a->size, from + n * stride, (size_t)a->size * sizeof(float));
    memset(to + a->length * a->size, 0, (size_t)(behind * a->size) * sizeof(float));
}

/* Columns [size][SPAN], each times its factor, as rows of tokens from `to` on; those that are there. */
TARGET INLINE void NAME(put)(const float *columns, int64_t size, const float *factor, int64_t count, float *aside, float *to,
                             int64_t stride) {
    NAME(turn_over)(columns, SPAN, size, SPAN, aside, size);
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < size; d += LANES)
            NAME(store)(to + i * stride + d, NAME(load)(aside + i * size + d) * SET1(factor[i]));
}

/* Scores [keys][SPAN] become exp(scale * score - top), the queries' sums of it in `total`. */
TARGET INLINE void NAME(weigh_column)(float *scores, int64_t keys, float scale, const float *top, float *total) {
    for (int v = 0; v < ACROSS; v++) {
        const VEC least = NAME(load)(top + v * LANES);
        VEC sum = SET1(0.0f);
        for (int64_t j = 0; j < keys; j++) {
            float *at = scores + j * SPAN + v * LANES;
            const VEC w = NAME(exp)(FMA(NAME(load)(at), SET1(scale), SET1(0.0f) - least));
            NAME(store)(at, w);
            sum = sum + w;
        }
        NAME(store)(total + v * LANES, sum);
    }
}

/* Room of a thread, both ways; `backward` takes all of it. */
typedef struct {
    float *k, *v, *q, *grad, *grad_k, *grad_v; /* [padded, size] */
    float *side, *grad_side;                   /* SPAN queries and gradients of their outputs, [size][SPAN] */
    float *columns, *aside;                    /* what is made of SPAN queries, as columns and as rows */
    float *scores;                             /* [padded][SPAN], backward their gradients */
} NAME(room);

/* Returns its end. */
static uintptr_t NAME(lay_out)(const train_attention *a, int backward, const void *at, NAME(room) *r) {
    uintptr_t end = (uintptr_t)at;
    const size_t length = (size_t)padded(a->length), size = (size_t)a->size;
    float **heads[] = {&r->k, &r->v, &r->q, &r->grad, &r->grad_k, &r->grad_v};
    float **spans[] = {&r->side, &r->columns, &r->aside, &r->grad_side};
    for (int i = 0; i < (backward ? 6 : 3); i++) *heads[i] = carve(&end, length * size * sizeof(float));
    for (int i = 0; i < (backward ? 4 : 3); i++) *spans[i] = carve(&end, SPAN * size * sizeof(float));
    r->scores = carve(&end, length * SPAN * sizeof(float));
    return end;
}

/* Scores of a square are masked in place, and the largest of each query is taken. */
TARGET INLINE void NAME(largest)(const queries *q, int64_t key, float *scores, VEC *tops) {
    const int all = all_seen(q, key);
    for (int64_t j = 0; j < SPAN; j++)
        for (int v = 0; v < ACROSS; v++) {
            float *score = scores + j * SPAN + v * LANES;
            VEC x = NAME(load)(score);
            if (!all) {
                x = NAME(choose)(NAME(sees)(q, v, key + j), x, SET1(-__builtin_inff()));
                NAME(store)(score, x);
            }
            tops[v] = NAME(choose)(x > tops[v], x, tops[v]);
        }
}

/* SPAN queries of a head. */
TARGET static void NAME(attend_span)(const train_attention *a, const group_task *t, int64_t head, int64_t first,
                                     const NAME(room) *r) {
    const queries seen = queries_at(a, t->row, first);
    const int64_t size = a->size, keys = keys_of(&seen);
    const float scale = 1.0f / __builtin_sqrtf((float)size);
    float top[SPAN], total[SPAN], factor[SPAN], *lse = lse_at(a, t, head, first);
    VEC tops[ACROSS];
    for (int v = 0; v < ACROSS; v++) tops[v] = SET1(UNSEEN);
    NAME(turn_over)(r->q + first * size, size, SPAN, size, r->side, SPAN);
    for (int64_t j = 0; j < keys; j += SPAN) {
        float *scores = r->scores + j * SPAN;
        NAME(product)(r->k + (seen.begin + j) * size, size, 1, r->side, SPAN, size, SPAN, 0, scores, SPAN);
        NAME(largest)(&seen, seen.begin + j, scores, tops);
    }
    for (int v = 0; v < ACROSS; v++) NAME(store)(top + v * LANES, tops[v] * SET1(scale));
    NAME(weigh_column)(r->scores, keys, scale, top, total);
    NAME(product)(r->v + seen.begin * size, 1, size, r->scores, SPAN, keys, size, 0, r->columns, SPAN);
    for (int64_t i = 0; i < SPAN; i++) factor[i] = 1.0f / total[i];
    NAME(put)(r->columns, size, factor, seen.count, r->aside, (float *)a->out + query_at(a, t, head, first), t->stride);
    for (int64_t i = 0; i < seen.count; i++) lse[i] = top[i] + __builtin_logf(total[i]);
}

TARGET static void NAME(attend_forward)(const train_attention *a, int64_t task, void *scratch) {
    const group_task t = task_of(a, task);
    NAME(room) r;
    NAME(lay_out)(a, 0, scratch, &r);
    NAME(gather)(a, a->k, t.keys, t.key_stride, r.k);
    NAME(gather)(a, a->v, t.keys, t.key_stride, r.v);
    for (int64_t head = t.head; head < t.end; head++) {
        NAME(gather)(a, a->q, query_at(a, &t, head, 0), t.stride, r.q);
        for (int64_t first = 0; first < a->length; first += SPAN) NAME(attend_span)(a, &t, head, first, &r);
    }
}

static size_t NAME(forward_scratch)(const train_attention *a) {
    NAME(room) r;
    return (size_t)NAME(lay_out)(a, 0, 0, &r);
}

/* Scores become weights, gradients of weights those of scores. */
TARGET INLINE void NAME(slopes)(const queries *q, int64_t key, float scale, const float *lse, const float *along,
                                float *scores, float *grads) {
    const int all = all_seen(q, key);
    for (int64_t j = 0; j < SPAN; j++)
        for (int v = 0; v < ACROSS; v++) {
            float *score = scores + j * SPAN + v * LANES, *grad = grads + j * SPAN + v * LANES;
            VEC w = NAME(exp)(FMA(NAME(load)(score), SET1(scale), SET1(0.0f) - NAME(load)(lse + v * LANES)));
            if (!all) w = NAME(choose)(NAME(sees)(q, v, key + j), w, SET1(0.0f));
            NAME(store)(score, w);
            NAME(store)(grad, w * (NAME(load)(grad) - NAME(load)(along + v * LANES)));
        }
}

/* Of each query the product of its output with the gradient of it. */
TARGET INLINE void NAME(alongs)(const train_attention *a, int64_t at, int64_t stride, int64_t count, float *to) {
    for (int64_t i = 0; i < SPAN; i++) {
        VEC sum = SET1(0.0f);
        for (int64_t d = 0; d < a->size && i < count; d += LANES)
            sum = FMA(NAME(load)((const float *)a->out + at + i * stride + d),
                      NAME(load)((const float *)a->grad + at + i * stride + d), sum);
        to[i] = TOTAL(sum);
    }
}

/* The sums of a head of keys as rows of tokens, each times the factor. */
TARGET static void NAME(spread)(const train_attention *a, const float *from, float factor, void *all, const group_task *t) {
    for (int64_t n = 0; n < a->length; n++)
        for (int64_t d = 0; d < a->size; d += LANES)
            NAME(store)((float *)all + t->keys + n * t->key_stride + d, NAME(load)(from + n * a->size + d) * SET1(factor));
}

/* SPAN queries of a head by the keys that they see: adds to the gradients of keys and values, writes those of queries. */
TARGET static void NAME(turn_back)(const train_attention *a, const group_task *t, int64_t head, int64_t first,
                                   const NAME(room) *r) {
    const queries seen = queries_at(a, t->row, first);
    const int64_t size = a->size, keys = keys_of(&seen), at = query_at(a, t, head, first);
    const float scale = 1.0f / __builtin_sqrtf((float)size);
    float along[SPAN], lse[SPAN] = {0}, factor[SPAN], scores[SPAN * SPAN];
    for (int i = 0; i < SPAN; i++) factor[i] = scale;
    NAME(alongs)(a, at, t->stride, seen.count, along);
    memcpy(lse, lse_at(a, t, head, first), (size_t)seen.count * sizeof(float));
    NAME(turn_over)(r->q + first * size, size, SPAN, size, r->side, SPAN);
    NAME(turn_over)(r->grad + first * size, size, SPAN, size, r->grad_side, SPAN);
    for (int64_t j = 0; j < keys; j += SPAN) {
        const int64_t key = seen.begin + j;
        float *found = r->scores + j * SPAN;
        NAME(product)(r->k + key * size, size, 1, r->side, SPAN, size, SPAN, 0, scores, SPAN);
        NAME(product)(r->v + key * size, size, 1, r->grad_side, SPAN, size, SPAN, 0, found, SPAN);
        NAME(slopes)(&seen, key, scale, lse, along, scores, found);
        for (int64_t d = 0; d < size; d += SPAN) {
            const int64_t to = key * size + d, from = first * size + d;
            NAME(product)(scores, SPAN, 1, r->grad + from, size, SPAN, SPAN, 1, r->grad_v + to, size);
            NAME(product)(found, SPAN, 1, r->q + from, size, SPAN, SPAN, 1, r->grad_k + to, size);
        }
    }
    NAME(product)(r->k + seen.begin * size, 1, size, r->scores, SPAN, keys, size, 0, r->columns, SPAN);
    NAME(put)(r->columns, size, factor, seen.count, r->aside, (float *)a->grad_q + at, t->stride);
}

TARGET static void NAME(attend_backward)(const train_attention *a, int64_t task, void *scratch) {
    const group_task t = task_of(a, task);
    const size_t sums = (size_t)(padded(a->length) * a->size) * sizeof(float);
    NAME(room) r;
    NAME(lay_out)(a, 1, scratch, &r);
    NAME(gather)(a, a->k, t.keys, t.key_stride, r.k);
    NAME(gather)(a, a->v, t.keys, t.key_stride, r.v);
    memset(r.grad_k, 0, sums);
    memset(r.grad_v, 0, sums);
    for (int64_t head = t.head; head < t.end; head++) {
        NAME(gather)(a, a->q, query_at(a, &t, head, 0), t.stride, r.q);
        NAME(gather)(a, a->grad, query_at(a, &t, head, 0), t.stride, r.grad);
        for (int64_t first = 0; first < a->length; first += SPAN) NAME(turn_back)(a, &t, head, first, &r);
    }
    NAME(spread)(a, r.grad_k, 1.0f / __builtin_sqrtf((float)a->size), a->grad_k, &t);
    NAME(spread)(a, r.grad_v, 1.0f, a->grad_v, &t);
}

static size_t NAME(backward_scratch)(const train_attention *a) {
    NAME(room) r;
    return (size_t)NAME(lay_out)(a, 1, 0, &r);
}
