/* x86 with AVX2, FMA and F16C. */
#include "train.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define NAME(name) avx2_##name
#define LANES 8
#define VEC __m256
#define SET1 _mm256_set1_ps
#define BLEND(which, yes, no) _mm256_blendv_ps(no, yes, (__m256)(which))
#define ROUND(x) (((x) + SET1(0x1.8p+23f)) - SET1(0x1.8p+23f))
#define TIMES_2_TO(p, n) /* 0 where that is no normal number */                                                         \
    NAME(choose)((n) < SET1(-126.0f), SET1(0.0f), (VEC)((INTS)(p) + (__builtin_convertvector(n, INTS) << 23)))
#define FMA _mm256_fmadd_ps
#define RECIPROCAL(x) (SET1(1.0f) / (x))
#define SQRT _mm256_sqrt_ps
#define TILE_ROWS 4
#define TILE_VECTORS 2

TARGET INLINE float total(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

TARGET INLINE float largest(__m256 v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

TARGET INLINE void transpose(__m256 *v) {
    __m256 a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
            b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

TARGET INLINE __m256 widen_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

TARGET INLINE __m256 widen_e4m3(const uint8_t *p) {
    __m128i half = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_and_si128(half, _mm_set1_epi16((short)0xbfff))), _mm256_set1_ps(256.0f));
}

TARGET INLINE void narrow_bf16(uint16_t *p, __m256 v) {
    const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(v), 16);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
}

#define TOTAL total
#define TOP largest
#define TRANSPOSE transpose
#define WIDEN_BF16 widen_bf16
#define WIDEN_E4M3 widen_e4m3
#define NARROW_BF16 narrow_bf16
#include "prepare.inc.h"
#include "vectors.inc.h"
#include "attention.inc.h"
#include "elementwise.inc.h"
#include "train.inc.h"
#endif
