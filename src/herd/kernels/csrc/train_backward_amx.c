/* Attention for training on AMX, backward, in bfloat16: from q, k, v, the output and the logarithm of each query's sum.

   Weights are made again, a square at a time. Gradients of keys and values are summed in float over all queries that look
   at them; those of queries in tiles, from the first key to the last. */
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
    uint16_t *k, *v, *k_turned, *q, *grad;             /* [padded, size] */
    uint16_t *q_side, *q_pairs, *grad_side, *grad_pairs; /* SPAN of them */
    uint16_t *pairs;                                   /* gradients of the scores of SPAN queries */
    float *columns;                                    /* [size][SPAN] */
    float *grad_k, *grad_v;                            /* [padded, size] */
} room;

/* Returns its end. */
static uintptr_t lay_out(const train_attention *a, const void *at, room *r) {
    uintptr_t end = (uintptr_t)at;
    const size_t length = (size_t)padded(a->length), size = (size_t)a->size;
    uint16_t **heads[] = {&r->k, &r->v, &r->k_turned, &r->q, &r->grad};
    uint16_t **spans[] = {&r->q_side, &r->q_pairs, &r->grad_side, &r->grad_pairs};
    for (int i = 0; i < 5; i++) *heads[i] = carve(&end, length * size * 2);
    for (int i = 0; i < 4; i++) *spans[i] = carve(&end, SPAN * size * 2);
    r->pairs = carve(&end, length * SPAN * 2);
    r->columns = carve(&end, size * SPAN * 4);
    r->grad_k = carve(&end, length * size * 4);
    r->grad_v = carve(&end, length * size * 4);
    return end;
}

/* to [SPAN rows][size] += rows [SPAN][SPAN queries] by queries in pairs. */
TARGET INLINE void add_product(const uint16_t *rows, const uint16_t *pairs, int64_t size, float *to) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + TILE, 64);
    for (int64_t d = 0; d < size; d += 32, pairs += 2 * TILE) {
        load_square(to + d, size);
        _tile_loadd(6, pairs, 64);
        _tile_loadd(7, pairs + TILE, 64);
        multiply_square();
        store_square(to + d, size);
    }
}

/* Of each query the product of its output with the gradient of it. */
TARGET INLINE void products(const uint16_t *x, const uint16_t *y, int64_t stride, int64_t count, int64_t size,
                            float *to) {
    for (int64_t i = 0; i < SPAN; i++) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t d = 0; d < size && i < count; d += 32)
            sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x + i * stride + d),
                                   (__m512bh)_mm512_loadu_si512(y + i * stride + d));
        to[i] = _mm512_reduce_add_ps(sum);
    }
}

/* Of each half of SPAN queries: the logarithms of their sums, and their `products`. */
typedef struct {
    __m512 lse[2], along[2];
} known;

TARGET INLINE known known_of(const train_attention *a, const group_task *t, int64_t head, const queries *q) {
    const int64_t at = query_at(a, t, head, q->first);
    float sums[SPAN], logs[SPAN] = {0};
    products((const uint16_t *)a->out + at, (const uint16_t *)a->grad + at, t->stride, q->count, a->size, sums);
    memcpy(logs, lse_at(a, t, head, q->first), (size_t)q->count * sizeof(float));
    return (known){{_mm512_loadu_ps(logs), _mm512_loadu_ps(logs + 16)},
                   {_mm512_loadu_ps(sums), _mm512_loadu_ps(sums + 16)}};
}

/* Weights and the gradients of scores of a square, as rows of bfloat16 [key][query]. */
TARGET INLINE void slopes(const queries *q, int64_t key, const float *scores, const float *grads, __m512 scale,
                          const known *of, uint16_t *weights, uint16_t *found) {
    const int all = all_seen(q, key);
    for (int64_t j = 0; j < SPAN; j++) {
        __m512 w[2], g[2];
        for (int64_t h = 0; h < 2; h++) {
            w[h] = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + j * SPAN + 16 * h), scale, of->lse[h]));
            if (!all) w[h] = _mm512_maskz_mov_ps(sees(q, h, key + j), w[h]);
            g[h] = _mm512_mul_ps(w[h], _mm512_sub_ps(_mm512_load_ps(grads + j * SPAN + 16 * h), of->along[h]));
        }
        _mm512_store_si512(weights + j * SPAN, (__m512i)_mm512_cvtne2ps_pbh(w[1], w[0]));
        _mm512_store_si512(found + j * SPAN, (__m512i)_mm512_cvtne2ps_pbh(g[1], g[0]));
    }
}

/* SPAN queries of a head by the keys that they see: adds to the gradients of keys and values, writes those of queries. */
TARGET INLINE void attend(const train_attention *a, const group_task *t, int64_t head, int64_t first, const room *r) {
    float scores[SPAN * SPAN] __attribute__((aligned(64))), grads[SPAN * SPAN] __attribute__((aligned(64)));
    uint16_t weights[2 * TILE] __attribute__((aligned(64))), found[2 * TILE] __attribute__((aligned(64)));
    const queries seen = queries_at(a, t->row, first);
    const known of = known_of(a, t, head, &seen);
    const int64_t size = a->size, keys = keys_of(&seen);
    const float root = 1.0f / __builtin_sqrtf((float)size);
    const __m512 scale = _mm512_set1_ps(LOG2_E * root), factor[2] = {_mm512_set1_ps(root), _mm512_set1_ps(root)};
    on_side(r->q + first * size, size, r->q_side);
    in_pairs(r->q + first * size, SPAN, size, r->q_pairs);
    on_side(r->grad + first * size, size, r->grad_side);
    in_pairs(r->grad + first * size, SPAN, size, r->grad_pairs);
    for (int64_t j = 0; j < keys; j += SPAN) {
        const int64_t key = seen.begin + j;
        square(r->k + key * size, r->q_side, size, scores);
        square(r->v + key * size, r->grad_side, size, grads);
        slopes(&seen, key, scores, grads, scale, &of, weights, found);
        add_product(weights, r->grad_pairs, size, r->grad_v + key * size);
        add_product(found, r->q_pairs, size, r->grad_k + key * size);
        in_pairs(found, SPAN, SPAN, r->pairs + j * SPAN);
    }
    mix(r->k_turned + seen.begin * size, r->pairs, keys / SPAN, size, r->columns);
    put(r->columns, size, factor, seen.count, (uint16_t *)a->grad_q + query_at(a, t, head, first), t->stride);
}

/* The sums of a head of keys as rows of tokens, each times the factor. */
TARGET static void narrow(const train_attention *a, const float *from, float factor, void *all, const group_task *t) {
    for (int64_t n = 0; n < a->length; n++)
        for (int64_t d = 0; d < a->size; d += 16) {
            const __m512 found = _mm512_mul_ps(_mm512_load_ps(from + n * a->size + d), _mm512_set1_ps(factor));
            uint16_t *to = (uint16_t *)all + t->keys + n * t->key_stride + d;
            _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(found));
        }
}

TARGET static void backward(const train_attention *a, int64_t task, void *scratch) {
    const group_task t = task_of(a, task);
    const size_t sums = (size_t)(padded(a->length) * a->size) * sizeof(float);
    room r;
    lay_out(a, scratch, &r);
    configure_tiles(SIDE);
    gather(a, a->k, t.keys, t.key_stride, r.k);
    gather(a, a->v, t.keys, t.key_stride, r.v);
    turned(r.k, padded(a->length), a->size, r.k_turned);
    memset(r.grad_k, 0, sums);
    memset(r.grad_v, 0, sums);
    for (int64_t head = t.head; head < t.end; head++) {
        gather(a, a->q, query_at(a, &t, head, 0), t.stride, r.q);
        gather(a, a->grad, query_at(a, &t, head, 0), t.stride, r.grad);
        for (int64_t first = 0; first < a->length; first += SPAN) attend(a, &t, head, first, &r);
    }
    narrow(a, r.grad_k, 1.0f / __builtin_sqrtf((float)a->size), a->grad_k, &t);
    narrow(a, r.grad_v, 1.0f, a->grad_v, &t);
    _tile_release();
}

static size_t scratch_bytes(const train_attention *a) {
    room r;
    return (size_t)lay_out(a, 0, &r);
}

attention_work amx_train_backward(void) { return (attention_work){backward, scratch_bytes}; }
#else
attention_work amx_train_backward(void) { return (attention_work){0}; }
#endif
