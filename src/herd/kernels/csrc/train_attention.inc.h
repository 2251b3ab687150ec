/* Attention for training in float, at each level, heads of whole steps of 32; the walk is that of train_attention_amx.c:
   squares of SPAN queries by SPAN keys, scores on their side, [key][query]. Needs vectors.inc.h. */

#define SPAN 32
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

/* The SPAN queries from `first` on: where each one's document starts, and from which square on they see keys. */
typedef struct {
    int64_t first, begin, latest; /* keys from the latest start on are everybody's */
    int32_t starts[SPAN], places[SPAN];
} NAME(queries);

TARGET INLINE NAME(queries) NAME(queries_at)(const train_attention *a, int64_t row, int64_t first) {
    NAME(queries) found = {.first = first, .begin = first};
    for (int64_t i = 0; i < SPAN; i++) {
        const int64_t at = first + i, start = at < a->length ? a->starts[row * a->length + at] : at;
        found.starts[i] = (int32_t)start; /* behind the end: itself alone */
        found.places[i] = (int32_t)at;
        found.begin = start < found.begin ? start : found.begin;
        found.latest = start > found.latest ? start : found.latest;
    }
    found.begin = found.begin / SPAN * SPAN;
    return found;
}

TARGET INLINE INTS NAME(sees)(const NAME(queries) *q, int v, int64_t key) {
    INTS starts, places;
    memcpy(&starts, q->starts + v * LANES, sizeof starts);
    memcpy(&places, q->places + v * LANES, sizeof places);
    return (starts <= (int32_t)key) & (places >= (int32_t)key);
}

TARGET INLINE int NAME(all_seen)(const NAME(queries) *q, int64_t key) {
    return key + SPAN <= q->first + 1 && q->latest <= key;
}

TARGET INLINE float *NAME(room)(char **room, int64_t numbers) {
    char *taken = *room;
    *room += ((size_t)numbers * sizeof(float) + 63) / 64 * 64;
    return (float *)(void *)taken;
}

/* A head of a row of tokens, zeros behind its end. */
TARGET static void NAME(gather)(const void *all, int64_t at, int64_t stride, const train_attention *a, int64_t padded,
                                float *to) {
    const float *from = (const float *)all + at;
    for (int64_t n = 0; n < a->length; n++) memcpy(to + n * a->size, from + n * stride, (size_t)a->size * sizeof(float));
    memset(to + a->length * a->size, 0, (size_t)((padded - a->length) * a->size) * sizeof(float));
}

/* Columns [size][SPAN], each times its factor, as rows of tokens; those that are there. */
TARGET INLINE void NAME(put)(const float *columns, const float *factor, int64_t count, const train_attention *a, float *aside,
                             void *all, int64_t at, int64_t stride) {
    NAME(turn_over)(columns, SPAN, a->size, SPAN, aside, a->size);
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < a->size; d += LANES)
            NAME(store)((float *)all + at + i * stride + d, NAME(load)(aside + i * a->size + d) * SET1(factor[i]));
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

TARGET static void NAME(attend_forward)(const train_attention *a, int64_t task, char *room) {
    const int64_t row = task / a->groups, group = task % a->groups, size = a->size, shared = a->heads / a->groups;
    const int64_t padded = (a->length + SPAN - 1) / SPAN * SPAN, stride = a->heads * size;
    const int64_t from = row * a->length * a->groups * size + group * size;
    float *k = NAME(room)(&room, padded * size), *v = NAME(room)(&room, padded * size);
    float *q = NAME(room)(&room, padded * size), *side = NAME(room)(&room, SPAN * size);
    float *columns = NAME(room)(&room, SPAN * size), *aside = NAME(room)(&room, SPAN * size);
    float *scores = NAME(room)(&room, padded * SPAN);
    const float scale = 1.0f / __builtin_sqrtf((float)size);
    NAME(gather)(a->k, from, a->groups * size, a, padded, k);
    NAME(gather)(a->v, from, a->groups * size, a, padded, v);
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        const int64_t at = row * a->length * stride + head * size;
        NAME(gather)(a->q, at, stride, a, padded, q);
        for (int64_t first = 0; first < a->length; first += SPAN) {
            const NAME(queries) seen = NAME(queries_at)(a, row, first);
            const int64_t keys = first + SPAN - seen.begin, there = a->length - first < SPAN ? a->length - first : SPAN;
            VEC tops[ACROSS];
            float top[SPAN], total[SPAN], factor[SPAN];
            for (int i = 0; i < ACROSS; i++) tops[i] = SET1(UNSEEN);
            NAME(turn_over)(q + first * size, size, SPAN, size, side, SPAN);
            for (int64_t j = 0; j < keys; j += SPAN) {
                const int all = NAME(all_seen)(&seen, seen.begin + j);
                NAME(product)(k + (seen.begin + j) * size, size, 1, side, SPAN, size, SPAN, 0, scores + j * SPAN, SPAN);
                for (int64_t i = j; i < j + SPAN; i++)
                    for (int w = 0; w < ACROSS; w++) {
                        float *score = scores + i * SPAN + w * LANES;
                        VEC x = NAME(load)(score);
                        if (!all) {
                            x = NAME(choose)(NAME(sees)(&seen, w, seen.begin + i), x, SET1(-__builtin_inff()));
                            NAME(store)(score, x);
                        }
                        tops[w] = NAME(choose)(x > tops[w], x, tops[w]);
                    }
            }
            for (int w = 0; w < ACROSS; w++) NAME(store)(top + w * LANES, tops[w] * SET1(scale));
            NAME(weigh_column)(scores, keys, scale, top, total);
            NAME(product)(v + seen.begin * size, 1, size, scores, SPAN, keys, size, 0, columns, SPAN);
            for (int64_t i = 0; i < SPAN; i++) factor[i] = 1.0f / total[i];
            NAME(put)(columns, factor, there, a, aside, a->out, at + first * stride, stride);
            for (int64_t i = 0; i < there; i++)
                a->lse[(row * a->heads + head) * a->length + first + i] = top[i] + __builtin_logf(total[i]);
        }
    }
}

/* Scores become weights, gradients of weights those of scores. */
TARGET INLINE void NAME(slopes)(const NAME(queries) *q, int64_t key, float scale, const float *lse, const float *along,
                                float *scores, float *grads) {
    const int all = NAME(all_seen)(q, key);
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

TARGET static void NAME(spread)(const float *from, float factor, const train_attention *a, void *all, int64_t at) {
    for (int64_t n = 0; n < a->length; n++)
        for (int64_t d = 0; d < a->size; d += LANES)
            NAME(store)((float *)all + at + n * a->groups * a->size + d, NAME(load)(from + n * a->size + d) * SET1(factor));
}

TARGET static void NAME(attend_backward)(const train_attention *a, int64_t task, char *room) {
    const int64_t row = task / a->groups, group = task % a->groups, size = a->size, shared = a->heads / a->groups;
    const int64_t padded = (a->length + SPAN - 1) / SPAN * SPAN, stride = a->heads * size, whole = padded * size;
    const int64_t from = row * a->length * a->groups * size + group * size;
    float *k = NAME(room)(&room, whole), *v = NAME(room)(&room, whole), *q = NAME(room)(&room, whole);
    float *grad = NAME(room)(&room, whole), *grad_k = NAME(room)(&room, whole), *grad_v = NAME(room)(&room, whole);
    float *side = NAME(room)(&room, SPAN * size), *grad_side = NAME(room)(&room, SPAN * size);
    float *columns = NAME(room)(&room, SPAN * size), *aside = NAME(room)(&room, SPAN * size);
    float *grads = NAME(room)(&room, padded * SPAN), scores[SPAN * SPAN];
    const float scale = 1.0f / __builtin_sqrtf((float)size);
    float factor[SPAN];
    for (int i = 0; i < SPAN; i++) factor[i] = scale;
    NAME(gather)(a->k, from, a->groups * size, a, padded, k);
    NAME(gather)(a->v, from, a->groups * size, a, padded, v);
    memset(grad_k, 0, (size_t)whole * sizeof(float));
    memset(grad_v, 0, (size_t)whole * sizeof(float));
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        const int64_t at = row * a->length * stride + head * size;
        NAME(gather)(a->q, at, stride, a, padded, q);
        NAME(gather)(a->grad, at, stride, a, padded, grad);
        for (int64_t first = 0; first < a->length; first += SPAN) {
            const NAME(queries) seen = NAME(queries_at)(a, row, first);
            const int64_t keys = first + SPAN - seen.begin, there = a->length - first < SPAN ? a->length - first : SPAN;
            float along[SPAN], lse[SPAN] = {0};
            NAME(alongs)(a, at + first * stride, stride, there, along);
            memcpy(lse, a->lse + (row * a->heads + head) * a->length + first, (size_t)there * sizeof(float));
            NAME(turn_over)(q + first * size, size, SPAN, size, side, SPAN);
            NAME(turn_over)(grad + first * size, size, SPAN, size, grad_side, SPAN);
            for (int64_t j = 0; j < keys; j += SPAN) {
                const int64_t key = seen.begin + j;
                float *found = grads + j * SPAN;
                NAME(product)(k + key * size, size, 1, side, SPAN, size, SPAN, 0, scores, SPAN);
                NAME(product)(v + key * size, size, 1, grad_side, SPAN, size, SPAN, 0, found, SPAN);
                NAME(slopes)(&seen, key, scale, lse, along, scores, found);
                for (int64_t d = 0; d < size; d += SPAN) {
                    const int64_t to = key * size + d, queries = first * size + d;
                    NAME(product)(scores, SPAN, 1, grad + queries, size, SPAN, SPAN, 1, grad_v + to, size);
                    NAME(product)(found, SPAN, 1, q + queries, size, SPAN, SPAN, 1, grad_k + to, size);
                }
            }
            NAME(product)(k + seen.begin * size, 1, size, grads, SPAN, keys, size, 0, columns, SPAN);
            NAME(put)(columns, factor, there, a, aside, a->grad_q, at + first * stride, stride);
        }
    }
    NAME(spread)(grad_k, scale, a, a->grad_k, from);
    NAME(spread)(grad_v, 1.0f, a, a->grad_v, from);
}
