/* Attention for training on AMX, bfloat16, heads of whole steps of 32: forward, and backward from q, k, v, the output and
   the logarithm of each query's sum.

   Queries and keys are walked in squares of SPAN. Scores stand on their side, [key][query], so that softmax is work of
   whole vectors. Forward keeps all scores of SPAN queries: their maximum is known before the first exponential, and the
   mixture is summed in tiles from the first key to the last. Weights meet values rounded to bfloat16; their sum is not. */
#include "train.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>

#define TARGET                                                                                                         \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define NAME(name) amx_train_##name
#include "transpose.inc.h"

#define SPAN 32
#define TILE 512 /* bfloat16 numbers of a tile of operands: 16 rows of 32, or 16 pairs of rows of 16 */
#define LOG2_E 1.44269504f

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

TARGET INLINE void configure(void) {
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

INLINE int64_t padded(int64_t length) { return (length + SPAN - 1) / SPAN * SPAN; }

INLINE void *take(char **room, size_t bytes) {
    char *taken = *room;
    *room += (bytes + 63) / 64 * 64;
    return taken;
}

/* A head of a row of tokens, [padded, size], zeros behind its end. */
static void gather(const uint16_t *from, int64_t stride, int64_t length, int64_t size, uint16_t *to) {
    for (int64_t n = 0; n < length; n++) memcpy(to + n * size, from + n * stride, (size_t)size * 2);
    memset(to + length * size, 0, (size_t)((padded(length) - length) * size) * 2);
}

/* Tiles [16 rows][step of 32 numbers] on their side, [pair of numbers][16 rows][2]: an operand of sums over numbers. */
TARGET INLINE void on_side(const uint16_t *from, int64_t rows, int64_t size, uint16_t *to) {
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t d = 0; d < size; d += 32, to += TILE) {
            __m512i v[16];
            for (int64_t i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(from + (r + i) * size + d);
            NAME(transpose_words)(v);
            for (int64_t i = 0; i < 16; i++) _mm512_store_si512(to + i * 32, v[i]);
        }
}

/* Rows in pairs, tiles [32 rows][16 numbers] as [pair of rows][16 numbers][2]: an operand of sums over rows. */
TARGET INLINE void in_pairs(const uint16_t *from, int64_t rows, int64_t size, uint16_t *to) {
    uint16_t first[32], second[32];
    for (int i = 0; i < 32; i++) {
        first[i] = (uint16_t)(i / 2 + i % 2 * 32);
        second[i] = (uint16_t)(16 + i / 2 + i % 2 * 32);
    }
    const __m512i left = _mm512_loadu_si512(first), right = _mm512_loadu_si512(second);
    for (int64_t r = 0; r < rows; r += 32)
        for (int64_t d = 0; d < size; d += 32, to += 2 * TILE)
            for (int64_t i = 0; i < 16; i++) {
                const __m512i x = _mm512_loadu_si512(from + (r + 2 * i) * size + d);
                const __m512i y = _mm512_loadu_si512(from + (r + 2 * i + 1) * size + d);
                _mm512_store_si512(to + i * 32, _mm512_permutex2var_epi16(x, left, y));
                _mm512_store_si512(to + TILE + i * 32, _mm512_permutex2var_epi16(x, right, y));
            }
}

/* Columns as rows: tiles [32 rows][16 numbers] as [16 numbers][32 rows]. */
TARGET INLINE void turned(const uint16_t *from, int64_t rows, int64_t size, uint16_t *to) {
    in_pairs(from, rows, size, to);
    for (int64_t tile = 0; tile < rows / 32 * (size / 16); tile++, to += TILE) {
        __m512i v[16];
        for (int64_t i = 0; i < 16; i++) v[i] = _mm512_load_si512(to + i * 32);
        NAME(transpose_words)(v);
        for (int64_t i = 0; i < 16; i++) _mm512_store_si512(to + i * 32, v[i]);
    }
}

/* [32][32] products of 32 rows by 32 rows that lie on their side, sums over `size` numbers. */
TARGET INLINE void square(const uint16_t *rows, const uint16_t *side, int64_t size, float *to) {
    const int64_t steps = size / 32;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; s++) {
        _tile_loadd(4, rows + 32 * s, size * 2);
        _tile_loadd(5, rows + 16 * size + 32 * s, size * 2);
        _tile_loadd(6, side + s * TILE, 64);
        _tile_loadd(7, side + (steps + s) * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, 128);
    _tile_stored(1, to + 16, 128);
    _tile_stored(2, to + 16 * 32, 128);
    _tile_stored(3, to + 16 * 32 + 16, 128);
}

/* 2^x; 0 where that is no normal number, also of minus infinity; NaN of NaN. */
TARGET INLINE __m512 power_of_2(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, 8), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.339086336e-03f); /* Chebyshev's interpolation on [-1/2, 1/2], to 2e-7 */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.676031918e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550357114e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402210749e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931471880e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000000075f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p, n);
}

/* The SPAN queries from `first` on: where each one's document starts, and which squares of keys they see. */
typedef struct {
    int64_t first, begin;
    int32_t latest; /* the latest start: keys from there on are everybody's */
    __m512i starts[2], places[2];
} queries;

TARGET INLINE queries queries_at(const train_attention *a, int64_t row, int64_t first) {
    queries found = {.first = first};
    int32_t starts[SPAN], places[SPAN], least = (int32_t)first;
    for (int64_t i = 0; i < SPAN; i++) {
        const int64_t at = first + i;
        starts[i] = at < a->length ? a->starts[row * a->length + at] : (int32_t)at; /* behind the end: itself alone */
        places[i] = (int32_t)at;
        least = starts[i] < least ? starts[i] : least;
        found.latest = i == 0 || starts[i] > found.latest ? starts[i] : found.latest;
    }
    found.begin = least / SPAN * SPAN;
    for (int64_t h = 0; h < 2; h++) {
        found.starts[h] = _mm512_loadu_si512(starts + 16 * h);
        found.places[h] = _mm512_loadu_si512(places + 16 * h);
    }
    return found;
}

INLINE int all_seen(const queries *q, int64_t key) { return key + SPAN <= q->first + 1 && q->latest <= key; }

TARGET INLINE __mmask16 sees(const queries *q, int64_t half, int64_t key) {
    const __m512i at = _mm512_set1_epi32((int)key);
    return _mm512_cmple_epi32_mask(q->starts[half], at) & _mm512_cmple_epi32_mask(at, q->places[half]);
}

/* Two rows of 32 weights as pairs, for each half of the queries: what `in_pairs` does to rows. */
TARGET INLINE void pair_rows(__m512i x, __m512i y, __m512i left, __m512i right, uint16_t *to, uint16_t *other) {
    _mm512_store_si512(to, _mm512_permutex2var_epi16(x, left, y));
    _mm512_store_si512(other, _mm512_permutex2var_epi16(x, right, y));
}

/* to [size][32 queries]: turned rows by weights, sums over all keys. `side` holds, for each square of keys, size / 16 tiles
   of turned rows; `pairs` two tiles of weights in pairs. */
TARGET INLINE void mix(const uint16_t *side, const uint16_t *pairs, int64_t squares, int64_t size,
                       float *to) {
    const int64_t tiles = size / 16;
    for (int64_t d = 0; d < tiles; d += 2) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t s = 0; s < squares; s++) {
            _tile_loadd(4, side + (s * tiles + d) * TILE, 64);
            _tile_loadd(5, side + (s * tiles + d + 1) * TILE, 64);
            _tile_loadd(6, pairs + 2 * s * TILE, 64);
            _tile_loadd(7, pairs + (2 * s + 1) * TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, to + 16 * d * SPAN, 128);
        _tile_stored(1, to + 16 * d * SPAN + 16, 128);
        _tile_stored(2, to + 16 * (d + 1) * SPAN, 128);
        _tile_stored(3, to + 16 * (d + 1) * SPAN + 16, 128);
    }
}

/* Columns [size][SPAN] as rows of bfloat16, `stride` apart, each times its factor; those that are there. */
TARGET INLINE void put(const float *columns, int64_t size, const __m512 *factor, int64_t count, uint16_t *to,
                       int64_t stride) {
    for (int64_t half = 0; half < 2; half++)
        for (int64_t d = 0; d < size; d += 16) {
            __m512i v[16];
            for (int64_t i = 0; i < 16; i++)
                v[i] = (__m512i)_mm512_mul_ps(_mm512_load_ps(columns + (d + i) * SPAN + 16 * half), factor[half]);
            NAME(transpose_words)(v);
            for (int64_t i = 0; i < 16 && 16 * half + i < count; i++)
                _mm256_storeu_si256((__m256i *)(to + (16 * half + i) * stride + d),
                                    (__m256i)_mm512_cvtneps_pbh((__m512)v[i]));
        }
}

typedef struct {
    __m512i left, right;
} interleave;

TARGET INLINE interleave interleaving(void) {
    uint16_t first[32], second[32];
    for (int i = 0; i < 32; i++) {
        first[i] = (uint16_t)(i / 2 + i % 2 * 32);
        second[i] = (uint16_t)(16 + i / 2 + i % 2 * 32);
    }
    return (interleave){_mm512_loadu_si512(first), _mm512_loadu_si512(second)};
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

TARGET void amx_train_forward(const train_attention *a, int64_t task, char *room) {
    const int64_t row = task / a->groups, group = task % a->groups, size = a->size, shared = a->heads / a->groups;
    const int64_t length = padded(a->length), squares = length / SPAN, stride = a->heads * size;
    const size_t whole = (size_t)(length * size) * 2;
    uint16_t *k = take(&room, whole), *v = take(&room, whole), *v_turned = take(&room, whole);
    uint16_t *q = take(&room, whole), *q_side = take(&room, (size_t)(SPAN * size) * 2);
    float *scores = take(&room, (size_t)(length * SPAN) * 4), *columns = take(&room, (size_t)(size * SPAN) * 4);
    uint16_t *pairs = take(&room, (size_t)(squares * 2 * TILE) * 2);
    const int64_t from = row * a->length * a->groups * size + group * size;
    const interleave turn = interleaving();
    configure();
    gather((const uint16_t *)a->k + from, a->groups * size, a->length, size, k);
    gather((const uint16_t *)a->v + from, a->groups * size, a->length, size, v);
    turned(v, length, size, v_turned);
    const __m512 scale = _mm512_set1_ps(LOG2_E / __builtin_sqrtf((float)size));
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        gather((const uint16_t *)a->q + row * a->length * stride + head * size, stride, a->length, size, q);
        for (int64_t first = 0; first < a->length; first += SPAN) {
            const queries seen = queries_at(a, row, first);
            const int64_t count = (first + SPAN - seen.begin) / SPAN;
            __m512 top[2] = {_mm512_set1_ps(UNSEEN), _mm512_set1_ps(UNSEEN)}, total[2], factor[2];
            on_side(q + first * size, SPAN, size, q_side);
            for (int64_t s = 0; s < count; s++) {
                const int64_t key = seen.begin + s * SPAN;
                square(k + key * size, q_side, size, scores + s * SPAN * SPAN);
                largest(&seen, key, scores + s * SPAN * SPAN, top);
            }
            for (int64_t h = 0; h < 2; h++) {
                top[h] = _mm512_mul_ps(top[h], scale);
                total[h] = _mm512_setzero_ps();
            }
            for (int64_t j = 0; j < count * SPAN; j += 2) {
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
                pair_rows(both[0], both[1], turn.left, turn.right, to, to + TILE);
            }
            mix(v_turned + seen.begin * size, pairs, count, size, columns);
            float sums[SPAN], tops[SPAN];
            for (int64_t h = 0; h < 2; h++) {
                factor[h] = _mm512_div_ps(_mm512_set1_ps(1.0f), total[h]);
                _mm512_storeu_ps(sums + 16 * h, total[h]);
                _mm512_storeu_ps(tops + 16 * h, top[h]);
            }
            const int64_t left = a->length - first < SPAN ? a->length - first : SPAN;
            put(columns, size, factor, left, (uint16_t *)a->out + (row * a->length + first) * stride + head * size, stride);
            for (int64_t i = 0; i < left; i++)
                a->lse[(row * a->heads + head) * a->length + first + i] = tops[i] + __builtin_log2f(sums[i]);
        }
    }
    _tile_release();
}

/* to [32 rows][size] += rows [32][32 queries] by queries in pairs. */
TARGET INLINE void add_product(const uint16_t *rows, const uint16_t *pairs, int64_t size, float *to) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + TILE, 64);
    for (int64_t d = 0; d < size; d += 32, pairs += 2 * TILE) {
        _tile_loadd(0, to + d, size * 4);
        _tile_loadd(1, to + d + 16, size * 4);
        _tile_loadd(2, to + 16 * size + d, size * 4);
        _tile_loadd(3, to + 16 * size + d + 16, size * 4);
        _tile_loadd(6, pairs, 64);
        _tile_loadd(7, pairs + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_stored(0, to + d, size * 4);
        _tile_stored(1, to + d + 16, size * 4);
        _tile_stored(2, to + 16 * size + d, size * 4);
        _tile_stored(3, to + 16 * size + d + 16, size * 4);
    }
}

/* Weights and the gradients of scores of a square, as rows of bfloat16 [key][query]. */
TARGET INLINE void slopes(const queries *q, int64_t key, const float *scores, const float *grads, __m512 scale,
                          const __m512 *lse, const __m512 *along, uint16_t *weights, uint16_t *found) {
    const int all = all_seen(q, key);
    for (int64_t j = 0; j < SPAN; j++) {
        __m512 w[2], g[2];
        for (int64_t h = 0; h < 2; h++) {
            w[h] = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + j * SPAN + 16 * h), scale, lse[h]));
            if (!all) w[h] = _mm512_maskz_mov_ps(sees(q, h, key + j), w[h]);
            g[h] = _mm512_mul_ps(w[h], _mm512_sub_ps(_mm512_load_ps(grads + j * SPAN + 16 * h), along[h]));
        }
        _mm512_store_si512(weights + j * SPAN, (__m512i)_mm512_cvtne2ps_pbh(w[1], w[0]));
        _mm512_store_si512(found + j * SPAN, (__m512i)_mm512_cvtne2ps_pbh(g[1], g[0]));
    }
}

TARGET static void narrow(const float *from, int64_t length, int64_t size, float factor, uint16_t *to, int64_t stride) {
    for (int64_t n = 0; n < length; n++)
        for (int64_t d = 0; d < size; d += 16)
            _mm256_storeu_si256((__m256i *)(to + n * stride + d),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_load_ps(from + n * size + d), _mm512_set1_ps(factor))));
}

/* Of each query the product of its output with the gradient of it. */
TARGET INLINE void products(const uint16_t *x, const uint16_t *y, int64_t stride, int64_t count, int64_t size, float *to) {
    for (int64_t i = 0; i < SPAN; i++) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t d = 0; d < size && i < count; d += 32)
            sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x + i * stride + d),
                                   (__m512bh)_mm512_loadu_si512(y + i * stride + d));
        to[i] = _mm512_reduce_add_ps(sum);
    }
}

TARGET void amx_train_backward(const train_attention *a, int64_t task, char *room) {
    const int64_t row = task / a->groups, group = task % a->groups, size = a->size, shared = a->heads / a->groups;
    const int64_t length = padded(a->length), squares = length / SPAN, stride = a->heads * size;
    const size_t whole = (size_t)(length * size) * 2, few = (size_t)(SPAN * size) * 2;
    uint16_t *k = take(&room, whole), *v = take(&room, whole), *k_turned = take(&room, whole);
    uint16_t *q = take(&room, whole), *grad = take(&room, whole);
    uint16_t *q_side = take(&room, few), *q_pairs = take(&room, few);
    uint16_t *grad_side = take(&room, few), *grad_pairs = take(&room, few);
    float *columns = take(&room, (size_t)(size * SPAN) * 4);
    uint16_t *pairs = take(&room, (size_t)(squares * 2 * TILE) * 2);
    float *grad_k = take(&room, 2 * whole), *grad_v = take(&room, 2 * whole);
    float scores[SPAN * SPAN] __attribute__((aligned(64))), grads[SPAN * SPAN] __attribute__((aligned(64)));
    uint16_t weights[2 * TILE] __attribute__((aligned(64))), found[2 * TILE] __attribute__((aligned(64)));
    const int64_t from = row * a->length * a->groups * size + group * size;
    const interleave turn = interleaving();
    configure();
    gather((const uint16_t *)a->k + from, a->groups * size, a->length, size, k);
    gather((const uint16_t *)a->v + from, a->groups * size, a->length, size, v);
    turned(k, length, size, k_turned);
    memset(grad_k, 0, 2 * whole);
    memset(grad_v, 0, 2 * whole);
    const float root = 1.0f / __builtin_sqrtf((float)size);
    const __m512 scale = _mm512_set1_ps(LOG2_E * root), factor[2] = {_mm512_set1_ps(root), _mm512_set1_ps(root)};
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        const int64_t at = row * a->length * stride + head * size;
        gather((const uint16_t *)a->q + at, stride, a->length, size, q);
        gather((const uint16_t *)a->grad + at, stride, a->length, size, grad);
        for (int64_t first = 0; first < a->length; first += SPAN) {
            const queries seen = queries_at(a, row, first);
            const int64_t count = (first + SPAN - seen.begin) / SPAN, there = a->length - first < SPAN ? a->length - first : SPAN;
            float sums[SPAN], logs[SPAN] = {0};
            products((const uint16_t *)a->out + at + first * stride, (const uint16_t *)a->grad + at + first * stride, stride, there, size, sums);
            memcpy(logs, a->lse + (row * a->heads + head) * a->length + first, (size_t)there * 4);
            const __m512 along[2] = {_mm512_loadu_ps(sums), _mm512_loadu_ps(sums + 16)};
            const __m512 lse[2] = {_mm512_loadu_ps(logs), _mm512_loadu_ps(logs + 16)};
            on_side(q + first * size, SPAN, size, q_side);
            in_pairs(q + first * size, SPAN, size, q_pairs);
            on_side(grad + first * size, SPAN, size, grad_side);
            in_pairs(grad + first * size, SPAN, size, grad_pairs);
            for (int64_t s = 0; s < count; s++) {
                const int64_t key = seen.begin + s * SPAN;
                square(k + key * size, q_side, size, scores);
                square(v + key * size, grad_side, size, grads);
                slopes(&seen, key, scores, grads, scale, lse, along, weights, found);
                add_product(weights, grad_pairs, size, grad_v + key * size);
                add_product(found, q_pairs, size, grad_k + key * size);
                for (int64_t j = 0; j < SPAN; j += 2) {
                    uint16_t *to = pairs + s * 2 * TILE + j / 2 * 32;
                    pair_rows(_mm512_load_si512(found + j * SPAN), _mm512_load_si512(found + (j + 1) * SPAN), turn.left,
                              turn.right, to, to + TILE);
                }
            }
            mix(k_turned + seen.begin * size, pairs, count, size, columns);
            put(columns, size, factor, there, (uint16_t *)a->grad_q + at + first * stride, stride);
        }
    }
    narrow(grad_k, a->length, size, root, (uint16_t *)a->grad_k + from, a->groups * size);
    narrow(grad_v, a->length, size, 1.0f, (uint16_t *)a->grad_v + from, a->groups * size);
    _tile_release();
}

size_t amx_train_scratch(const train_attention *a, int backward) {
    const size_t length = (size_t)padded(a->length), size = (size_t)a->size, whole = length * size * 2;
    const size_t few = SPAN * size * 2, pairs = length / SPAN * 2 * TILE * 2;
    return (backward ? 9 * whole + 6 * few + pairs : 4 * whole + 3 * few + length * SPAN * 4 + pairs) + 64 * 16;
}

int amx_train_able(void) { return 1; }
#else
size_t amx_train_scratch(const train_attention *a, int backward) {
    (void)a;
    (void)backward;
    return 0;
}

void amx_train_forward(const train_attention *a, int64_t task, char *scratch) {
    (void)a;
    (void)task;
    (void)scratch;
}

void amx_train_backward(const train_attention *a, int64_t task, char *scratch) {
    amx_train_forward(a, task, scratch);
}

int amx_train_able(void) { return 0; }
#endif
