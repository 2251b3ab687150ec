/* x86 with AVX512 (F, BW, VL, DQ): as AVX2, twice as wide and with twice the registers. */
#include "job.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define NAME(name) avx512_##name
#include "prepare.inc.h"
#include "transpose.inc.h"

TARGET INLINE void avx512_widen_fp8(const uint8_t *w, __m512 *v) {
    __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w));
    __m512i half = _mm512_and_si512(_mm512_slli_epi16(code, 7), _mm512_set1_epi16((short)0xbfff));
    v[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
    v[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
}

TARGET INLINE void avx512_widen_bf16(const uint8_t *w, __m512 *v) {
    for (int p = 0; p < 2; p++) {
        __m512i word = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(w + 32 * p)));
        v[p] = _mm512_castsi512_ps(_mm512_slli_epi32(word, 16));
    }
}

TARGET INLINE void avx512_widen_int8(const uint8_t *w, __m512 *v) {
    for (int p = 0; p < 2; p++)
        v[p] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(w + 16 * p))));
}

TARGET INLINE void avx512_widen_q8_0(const uint8_t *w, __m512 *v) {
    uint16_t half;
    memcpy(&half, w, 2);
    __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
    avx512_widen_int8(w + 2, v);
    for (int p = 0; p < 2; p++) v[p] = _mm512_mul_ps(v[p], scale);
}

/* 16 rows of 16 floats, `row_bytes` apart, as columns `stride` floats apart. */
TARGET INLINE void avx512_turn(const uint8_t *w, int64_t row_bytes, float *to, int64_t stride) {
    __m512i v[16];
    for (int r = 0; r < 16; r++) v[r] = _mm512_loadu_si512(w + r * row_bytes);
    NAME(transpose_words)(v);
    for (int c = 0; c < 16; c++) _mm512_store_si512(to + c * stride, v[c]);
}

#define TURN avx512_turn
#define VEC __m512
#define LANES 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define ZERO _mm512_setzero_ps()
#define ADD _mm512_add_ps
#define FMA _mm512_fmadd_ps
#define SET1 _mm512_set1_ps
#define TOTAL _mm512_reduce_add_ps
#define FP8_FACTOR 256.0f
#define TILE_ROWS 2
#define TILE_COLUMNS 4
#define COLUMNS 12
#include "float_rows.inc.h"
#endif
