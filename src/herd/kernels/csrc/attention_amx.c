/* Attention on AMX: queries in bfloat16 over a cache of bfloat16 or e4m3, heads of whole steps of 32, pages of whole 16.

   Scores stand on their side, [keys][16 queries]: keys are tiles as they lie in a page, and maxima, exponentials and sums
   need nothing across a vector. Weights are rounded to bfloat16 before they meet the values; their sum is not. A lane
   (a query) that looks at none of the keys is left as it was. */
#include "pass.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>

#define TARGET                                                                                                         \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define NAME(name) amx_##name
#define LANES 16
#define VEC __m512
#define SET1 _mm512_set1_ps
#define BLEND(which, yes, no) _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)(which)), no, yes)
#define ROUND(x) _mm512_roundscale_ps(x, 8)
#define TIMES_2_TO(p, n) /* 0 where that is no normal number: numbers that are not cost a hundred times as much */       \
    _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, SET1(-126.0f), _CMP_NLT_UQ), p, n)
#define FMA _mm512_fmadd_ps
#define WIDEN_BF16(p) _mm512_setzero_ps() /* nothing here reads or writes single numbers */
#define WIDEN_E4M3(p) _mm512_setzero_ps()
#define NARROW_BF16(p, v) (void)(v)
#include "tiles.inc.h"
#include "transpose.inc.h"
#include "vectors.inc.h"

#define STEP 32 /* bfloat16 numbers of a row of a tile */
#define E4M3_FACTOR 256.0f

/* A query into its column of the tiles of 16 queries: [step][pair of numbers][query][2]. */
static void load_query(state *s, int64_t row, const void *q) {
    uint16_t *to = (uint16_t *)s->q + row / 16 * 16 * s->a->size + row % 16 * 2;
    for (int64_t i = 0; i < s->a->size; i++)
        to[i / STEP * TILE + i % STEP / 2 * STEP + i % 2] = ((const uint16_t *)q)[i];
}

/* 32 numbers of a key or a value as bfloat16; those of e4m3 by half precision, and 2^-8 of what they are. */
TARGET INLINE __m512i half_row(const attention *a, const char *from, int64_t d) {
    if (a->cache_type == BFLOAT16) return _mm512_loadu_si512((const uint16_t *)from + d);
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(from + d)));
    const __m512i half = _mm512_and_si512(_mm512_slli_epi16(code, 7), _mm512_set1_epi16((short)0xbfff));
    const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)), low);
}

/* Keys in e4m3 as bfloat16 [BLOCK, size]. */
TARGET INLINE void widen_keys(state *s, const span *p) {
    const attention *a = s->a;
    for (int64_t at = p->from; at < p->to; at++)
        for (int64_t d = 0; d < a->size; d += STEP)
            _mm512_storeu_si512((uint16_t *)s->k + (at - p->from) * a->size + d,
                                half_row(a, (const char *)a->keys + p->slots[at - p->from] * a->size, d));
}

/* Values in pairs of keys: tiles [half of the block][size / 16] of [pair][16 numbers][2]. */
TARGET INLINE void pair_values(state *s, const span *p) {
    const attention *a = s->a;
    const int64_t bytes = a->size * bytes_of(a->cache_type), keys = p->to - p->from;
    const char *all = a->values;
    const interleave turn = interleaving();
    for (int64_t j = 0; j < BLOCK; j += 2) {
        const char *one = j < keys ? all + p->slots[j] * bytes : 0;
        const char *two = j + 1 < keys ? all + p->slots[j + 1] * bytes : 0;
        uint16_t *to = (uint16_t *)s->v + j / STEP * (a->size / 16) * TILE + j % STEP / 2 * STEP;
        for (int64_t d = 0; d < a->size; d += STEP, to += 2 * TILE) {
            const __m512i x = one ? half_row(a, one, d) : _mm512_setzero_si512();
            const __m512i y = two ? half_row(a, two, d) : _mm512_setzero_si512();
            pair_rows(&turn, x, y, to, to + TILE);
        }
    }
}

/* Scores [BLOCK][16] of 16 queries. */
TARGET INLINE void score(const state *s, const span *p, int64_t row, float *scores) {
    const attention *a = s->a;
    const int64_t keys = p->to - p->from, stride = a->size * 2;
    const char *k[4];
    for (int64_t i = 0; i < 4; i++) {
        const int64_t j = 16 * i < keys ? 16 * i : 0; /* tiles behind the last key are not looked at */
        k[i] = a->cache_type == E4M3 ? (const char *)s->k + j * stride : (const char *)a->keys + p->slots[j] * stride;
    }
    const uint16_t *q = (const uint16_t *)s->q + row * a->size;
    zero_sums();
    for (int64_t d = 0; d < a->size; d += STEP, q += TILE) {
        _tile_loadd(4, q, 64);
        _tile_loadd(5, k[0] + 2 * d, stride);
        _tile_dpbf16ps(0, 5, 4);
        if (keys <= 16) continue;
        _tile_loadd(6, k[1] + 2 * d, stride);
        _tile_dpbf16ps(1, 6, 4);
        _tile_loadd(5, k[2] + 2 * d, stride);
        _tile_dpbf16ps(2, 5, 4);
        _tile_loadd(6, k[3] + 2 * d, stride);
        _tile_dpbf16ps(3, 6, 4);
    }
    _tile_stored(0, scores, 64);
    _tile_stored(1, scores + 256, 64);
    _tile_stored(2, scores + 512, 64);
    _tile_stored(3, scores + 768, 64);
}

/* Which lanes of 16 rows are the span's, and how many of its keys each may look at. */
TARGET INLINE __mmask16 lanes_of(const state *s, const span *p, int64_t row, __m512i *seen) {
    int32_t counts[16] = {0};
    for (int64_t i = 0; i < 16; i++) {
        if (row + i < p->first || row + i >= p->end) continue;
        const int64_t count = s->last[row + i] - p->from + 1;
        counts[i] = (int32_t)(count < 0 ? 0 : count < p->to - p->from ? count : p->to - p->from);
    }
    *seen = _mm512_loadu_si512(counts);
    return _mm512_cmpgt_epi32_mask(*seen, _mm512_setzero_si512());
}

/* exp(x scale - top) where both scale and top have log2(e) in them. */
TARGET INLINE __m512 weight_of(__m512 x, __m512 scale, __m512 top) {
    return power_of_2(_mm512_fmsub_ps(x, scale, top));
}

/* Scores become weights [2][16][STEP] in bfloat16; returns by how much each lane's earlier sums shrink. */
TARGET INLINE __m512 weigh(state *s, const span *p, int64_t row, __m512i seen, __mmask16 lanes, float *scores,
                           uint16_t *weights) {
    const attention *a = s->a;
    const int64_t keys = p->to - p->from;
    const __m512 never = SET1(-__builtin_inff()), scale = SET1(1.0f / __builtin_sqrtf((float)a->size));
    const __m512 before = _mm512_loadu_ps(s->top + row);
    const int all = _mm512_cmpge_epi32_mask(seen, _mm512_set1_epi32((int)keys)) == 0xffff;
    float key_scale[BLOCK], value_scale[BLOCK];
    for (int64_t j = 0; a->cache_type == E4M3 && j < keys; j++) {
        key_scale[j] = E4M3_FACTOR * scale_of(a->key_scale, p, j);
        value_scale[j] = E4M3_FACTOR * scale_of(a->value_scale, p, j);
    }
    __m512 top = _mm512_set1_ps(UNSEEN), sums[4] = {SET1(0.0f), SET1(0.0f), SET1(0.0f), SET1(0.0f)};
    for (int64_t j = 0; j < keys; j++) {
        __m512 x = _mm512_load_ps(scores + 16 * j);
        if (a->cache_type == E4M3) x = _mm512_mul_ps(x, SET1(key_scale[j]));
        if (!all) x = _mm512_mask_mov_ps(x, _mm512_cmple_epi32_mask(seen, _mm512_set1_epi32((int)j)), never);
        if (!all || a->cache_type == E4M3) _mm512_store_ps(scores + 16 * j, x);
        top = _mm512_max_ps(x, top);
    }
    top = _mm512_max_ps(before, top * scale);
    const __m512 scale_2 = scale * SET1(LOG2_E), top_2 = top * SET1(LOG2_E);
    uint16_t turns[32];
    for (int i = 0; i < 32; i++) turns[i] = (uint16_t)(i / 2 + i % 2 * 16);
    const __m512i beside = _mm512_loadu_si512(turns);
    for (int64_t half = 0; half < 2; half++) {
        __m512i pairs[16];
        for (int64_t i = 0; i < 16; i++) {
            __m512 w[2];
            for (int64_t o = 0; o < 2; o++) {
                const int64_t j = STEP * half + 2 * i + o;
                w[o] = j < keys ? weight_of(_mm512_load_ps(scores + 16 * j), scale_2, top_2) : _mm512_setzero_ps();
                sums[2 * (i % 2) + o] = sums[2 * (i % 2) + o] + w[o];
                if (a->cache_type == E4M3 && j < keys) w[o] = _mm512_mul_ps(w[o], SET1(value_scale[j]));
            }
            pairs[i] = _mm512_permutexvar_epi16(beside, (__m512i)_mm512_cvtne2ps_pbh(w[1], w[0]));
        }
        NAME(transpose_words)(pairs);
        for (int64_t i = 0; i < 16; i++) _mm512_store_si512(weights + (16 * half + i) * STEP, pairs[i]);
    }
    const __m512 shrink = NAME(exp)(before - top), total = _mm512_loadu_ps(s->total + row);
    const __m512 sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    _mm512_mask_storeu_ps(s->top + row, lanes, top);
    _mm512_mask_storeu_ps(s->total + row, lanes, total * shrink + sum);
    return shrink;
}

/* mixed [16, size] += weights times values, four tiles of 16 columns at a time. */
TARGET INLINE void mix(const state *s, float *mixed, int64_t stride, const uint16_t *weights) {
    const int64_t tiles = s->a->size / 16;
    const uint16_t *v = s->v;
    for (int64_t n = 0; n < tiles; n += 2) {
        _tile_loadd(0, mixed + 16 * n, stride * 4);
        _tile_loadd(1, mixed + 16 * n + 16, stride * 4);
        for (int64_t half = 0; half < 2; half++) {
            _tile_loadd(4, weights + half * TILE, 64);
            _tile_loadd(5, v + (half * tiles + n) * TILE, 64);
            _tile_loadd(6, v + (half * tiles + n + 1) * TILE, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 6);
        }
        _tile_stored(0, mixed + 16 * n, stride * 4);
        _tile_stored(1, mixed + 16 * n + 16, stride * 4);
    }
}

TARGET static void attend(state *s, const span *p) {
    float scores[BLOCK * 16] __attribute__((aligned(64))), few[16 * MOST_SIZE] __attribute__((aligned(64)));
    uint16_t weights[2 * TILE] __attribute__((aligned(64)));
    float shrinks[16];
    const int64_t size = s->a->size, stride = s->size_padded;
    configure_tiles(SIDE);
    if (s->a->cache_type == E4M3) widen_keys(s, p);
    pair_values(s, p);
    for (int64_t row = p->first / 16 * 16; row < p->end; row += 16) {
        __m512i seen;
        const __mmask16 lanes = lanes_of(s, p, row, &seen);
        if (!lanes) continue;
        score(s, p, row, scores);
        const __m512 shrink = weigh(s, p, row, seen, lanes, scores, weights);
        float *mixed = s->mixed + row * stride;
        _mm512_storeu_ps(shrinks, shrink);
        const int shrinks_any = _mm512_mask_cmp_ps_mask(lanes, shrink, SET1(1.0f), _CMP_NEQ_UQ) != 0;
        for (int64_t i = 0; shrinks_any && i < 16; i++)
            for (int64_t d = 0; lanes >> i & 1 && d < size; d += 16)
                _mm512_storeu_ps(mixed + i * stride + d, _mm512_loadu_ps(mixed + i * stride + d) * SET1(shrinks[i]));
        if (lanes == 0xffff) {
            mix(s, mixed, stride, weights);
            continue;
        }
        memcpy(few, mixed, (size_t)(16 * stride) * sizeof(float));
        mix(s, few, stride, weights);
        for (int64_t i = 0; i < 16; i++)
            if (lanes >> i & 1) memcpy(mixed + i * stride, few + i * stride, (size_t)size * sizeof(float));
    }
    _tile_release();
}

int amx_attention(const attention *a, attention_level *level) {
    if (a->q_type != BFLOAT16 || a->cache_type == FLOAT32 || a->size % STEP || a->page % 16) return 0;
    level->load = load_query;
    level->attend = attend;
    return 1;
}
#else
int amx_attention(const attention *a, attention_level *level) {
    (void)a;
    (void)level;
    return 0;
}
#endif
