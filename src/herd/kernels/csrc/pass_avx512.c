/* x86 with AVX512 (F, BW, VL, DQ). */
#include "train.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define NAME(name) avx512_##name
#define LANES 16
#define VEC __m512
#define SET1 _mm512_set1_ps
#define BLEND(which, yes, no) _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)(which)), no, yes)
#define ROUND(x) _mm512_roundscale_ps(x, 8)
#define TIMES_2_TO(p, n) /* 0 where that is no normal number: numbers that are not cost a hundred times as much */       \
    _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, SET1(-126.0f), _CMP_NLT_UQ), p, n)
#define FMA _mm512_fmadd_ps
#define RECIPROCAL(x) /* to 2^-23: more than bfloat16 sees, in half the time of a division */                             \
    (_mm512_rcp14_ps(x) * (SET1(2.0f) - (x) * _mm512_rcp14_ps(x)))
#define SQRT _mm512_sqrt_ps
#define TILE_ROWS 4
#define TILE_VECTORS 4
#include "transpose.inc.h"

TARGET INLINE void transpose(__m512 *v) {
    __m512i *rows = (__m512i *)v;
    NAME(transpose_words)(rows);
}

TARGET INLINE __m512 widen_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

TARGET INLINE __m512 widen_e4m3(const uint8_t *p) {
    __m256i half = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_and_si256(half, _mm256_set1_epi16((short)0xbfff))), _mm512_set1_ps(256.0f));
}

TARGET INLINE void narrow_bf16(uint16_t *p, __m512 v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(v), 16)));
}

#define TOTAL _mm512_reduce_add_ps
#define TOP _mm512_reduce_max_ps
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
