/* Attention for training on AMX, forward, in bfloat16.

   All scores of SPAN queries are kept: their maximum is known before the first exponential, and the mixture is summed in
   tiles from the first key to the last. Weights meet values rounded to bfloat16; their sum is not. */
#include "train_attention.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>

#define TARGET                                                                                                         \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define NAME(name) amx_##name
#include "tiles.inc.h"
#include "squares.inc.h"
#include "transpose.inc.h"
#include "train_tiles.inc.h"

typedef struct {
    uint16_t *k, *v_turned, *q; /* [padded, size] */
    uint16_t *q_side;           /* SPAN of them */
    float *scores;              /* [padded][SPAN] */
    uint16_t *pairs;            /* the weights that come of them */
    float *columns;             /* [size][SPAN] */
} room;

/* Returns its end. */
static uintptr_t lay_out(const train_attention *a, const void *at, room *r) {
    uintptr_t end = (uintptr_t)at;
    const size_t length = (size_t)padded(a->length), size = (size_t)a->size;
    r->k = carve(&end, length * size * 2);
    r->v_turned = carve(&end, length * size * 2);
    r->q = carve(&end, length * size * 2);
    r->q_side = carve(&end, SPAN * size * 2);
    r->scores = carve(&end, length * SPAN * 4);
    r->pairs = carve(&end, length * SPAN * 2);
    r->columns = carve(&end, size * SPAN * 4);
    return end;
}

/* Scores of a square are masked in place, and the largest of each query is taken. */
TARGET INLINE void largest(const queries *q, int64_t key, float *scores, __m512 *top) {
    const int all = all_seen(q, key);
    for (int64_t j = 0; j < SPAN; j++)
        for (int64_t h = 0; h < 2; h++) {
            __m512 x = _mm512_load_ps(scores + j * SPAN + 16 * h);
            if (!all) {
                x = _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), sees(q, h, key + j), x);
                _mm512_store_ps(scores + j * SPAN + 16 * h, x);
            }
            top[h] = _mm512_max_ps(x, top[h]);
        }
}

/* Scores of `keys` keys become weights 2^(scale * score - top) in pairs of keys, their sums go to `total`. */
TARGET INLINE void weigh(const float *scores, int64_t keys, __m512 scale, const __m512 *top, uint16_t *pairs,
                         __m512 *total) {
    const interleave turn = interleaving();
    for (int64_t j = 0; j < keys; j += 2) {
        __m512i both[2];
        for (int64_t o = 0; o < 2; o++) {
            const float *at = scores + (j + o) * SPAN;
            const __m512 x = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(at), scale, top[0]));
            const __m512 y = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(at + 16), scale, top[1]));
            total[0] = _mm512_add_ps(total[0], x);
            total[1] = _mm512_add_ps(total[1], y);
            both[o] = (__m512i)_mm512_cvtne2ps_pbh(y, x);
        }
        uint16_t *to = pairs + j / SPAN * 2 * TILE + j % SPAN / 2 * 32;
        pair_rows(&turn, both[0], both[1], to, to + TILE);
    }
}

/* SPAN queries of a head. */
TARGET INLINE void attend(const train_attention *a, const group_task *t, int64_t head, int64_t first, const room *r) {
    const queries seen = queries_at(a, t->row, first);
    const int64_t size = a->size, keys = keys_of(&seen);
    const __m512 scale = _mm512_set1_ps(LOG2_E / __builtin_sqrtf((float)size));
    __m512 top[2] = {_mm512_set1_ps(UNSEEN), _mm512_set1_ps(UNSEEN)};
    __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, factor[2];
    on_side(r->q + first * size, size, r->q_side);
    for (int64_t j = 0; j < keys; j += SPAN) {
        square(r->k + (seen.begin + j) * size, r->q_side, size, r->scores + j * SPAN);
        largest(&seen, seen.begin + j, r->scores + j * SPAN, top);
    }
    for (int64_t h = 0; h < 2; h++) top[h] = _mm512_mul_ps(top[h], scale);
    weigh(r->scores, keys, scale, top, r->pairs, total);
    mix(r->v_turned + seen.begin * size, r->pairs, keys / SPAN, size, r->columns);
    float sums[SPAN], tops[SPAN], *lse = lse_at(a, t, head, first);
    for (int64_t h = 0; h < 2; h++) {
        factor[h] = _mm512_div_ps(_mm512_set1_ps(1.0f), total[h]);
        _mm512_storeu_ps(sums + 16 * h, total[h]);
        _mm512_storeu_ps(tops + 16 * h, top[h]);
    }
    put(r->columns, size, factor, seen.count, (uint16_t *)a->out + query_at(a, t, head, first), t->stride);
    for (int64_t i = 0; i < seen.count; i++) lse[i] = tops[i] + __builtin_log2f(sums[i]);
}

TARGET static void forward(const train_attention *a, int64_t task, void *scratch) {
    const group_task t = task_of(a, task);
    room r;
    lay_out(a, scratch, &r);
    configure_tiles(SIDE);
    gather(a, a->k, t.keys, t.key_stride, r.k);
    gather(a, a->v, t.keys, t.key_stride, r.q); /* no query is there yet */
    turned(r.q, padded(a->length), a->size, r.v_turned);
    for (int64_t head = t.head; head < t.end; head++) {
        gather(a, a->q, query_at(a, &t, head, 0), t.stride, r.q);
        for (int64_t first = 0; first < a->length; first += SPAN) attend(a, &t, head, first, &r);
    }
    _tile_release();
}

static size_t scratch_bytes(const train_attention *a) {
    room r;
    return (size_t)lay_out(a, 0, &r);
}

attention_work amx_train_forward(void) { return (attention_work){forward, scratch_bytes}; }
#else
attention_work amx_train_forward(void) { return (attention_work){0}; }
#endif
