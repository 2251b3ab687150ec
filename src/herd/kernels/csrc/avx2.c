/* x86 with AVX2, FMA and F16C. e4m3 becomes half precision by a shift, exact with its subnormals up to a factor 2^8. */
#include "job.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define NAME(name) avx2_##name
#include "prepare.inc.h"

TARGET INLINE void avx2_widen_fp8(const uint8_t *w, __m256 *v) {
    for (int p = 0; p < 2; p++) {
        __m256i code = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16 * p)));
        __m256i half = _mm256_and_si256(_mm256_slli_epi16(code, 7), _mm256_set1_epi16((short)0xbfff));
        v[2 * p] = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
        v[2 * p + 1] = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
    }
}

TARGET INLINE void avx2_widen_bf16(const uint8_t *w, __m256 *v) {
    for (int p = 0; p < 4; p++) {
        __m256i word = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(w + 16 * p)));
        v[p] = _mm256_castsi256_ps(_mm256_slli_epi32(word, 16));
    }
}

TARGET INLINE void avx2_widen_int8(const uint8_t *w, __m256 *v) {
    for (int p = 0; p < 4; p++)
        v[p] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(w + 8 * p))));
}

TARGET INLINE void avx2_widen_q8_0(const uint8_t *w, __m256 *v) {
    uint16_t half;
    memcpy(&half, w, 2);
    __m256 scale = _mm256_set1_ps(_cvtsh_ss(half));
    avx2_widen_int8(w + 2, v);
    for (int p = 0; p < 4; p++) v[p] = _mm256_mul_ps(v[p], scale);
}

TARGET INLINE float avx2_total(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#define VEC __m256
#define LANES 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define ZERO _mm256_setzero_ps()
#define ADD _mm256_add_ps
#define FMA _mm256_fmadd_ps
#define SET1 _mm256_set1_ps
#define TOTAL avx2_total
#define FP8_FACTOR 256.0f
#define TILE_ROWS 1
#define TILE_COLUMNS 2
#define COLUMNS 6
#include "float_rows.inc.h"
#endif
