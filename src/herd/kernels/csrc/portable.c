/* Any processor: four lanes by the compiler's own vectors (SSE2, NEON), no instructions by name. */
#include "job.h"

#define TARGET
#define NAME(name) portable_##name
#include "prepare.inc.h"

typedef float vec4 __attribute__((vector_size(16)));

INLINE vec4 load4(const float *p) {
    vec4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store4(float *p, vec4 v) { memcpy(p, &v, sizeof v); }

INLINE float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    float small = (float)(rest & 0x3ff) * 0x1p-24f; /* subnormal */
    uint32_t bits = rest < 0x400 ? float_to_bits(small) : (rest << 13) + (rest < 0x7c00 ? 112u << 23 : 224u << 23);
    return bits_to_float(bits | sign);
}

INLINE float e4m3_to_float(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80) << 24, rest = code & 0x7f;
    uint32_t small = float_to_bits((float)(int32_t)rest * 0x1p-9f); /* subnormal: the mantissa counts 2^-9 */
    return bits_to_float((rest < 8 ? small : (rest << 20) + (120u << 23)) | sign);
}

#define WIDEN(name, value)                                                                                             \
    INLINE void portable_##name(const uint8_t *w, vec4 *v) {                                                           \
        float wide[32];                                                                                                \
        for (int i = 0; i < 32; i++) wide[i] = value;                                                                  \
        for (int p = 0; p < 8; p++) v[p] = load4(wide + 4 * p);                                                        \
    }
WIDEN(widen_fp8, e4m3_to_float(w[i]))
WIDEN(widen_bf16, bits_to_float((uint32_t)w[2 * i] << 16 | (uint32_t)w[2 * i + 1] << 24))
WIDEN(widen_int8, (float)(int8_t)w[i])

INLINE void portable_widen_q8_0(const uint8_t *w, vec4 *v) {
    float scale = half_to_float((uint16_t)(w[0] | w[1] << 8));
    portable_widen_int8(w + 2, v);
    for (int p = 0; p < 8; p++) v[p] *= scale;
}

#define VEC vec4
#define LANES 4
#define LOAD load4
#define STORE store4
#define ZERO ((vec4){0})
#define ADD(a, b) ((a) + (b))
#define FMA(a, b, c) ((a) * (b) + (c))
#define TOTAL(v) (((v)[0] + (v)[2]) + ((v)[1] + (v)[3]))
#define FP8_FACTOR 1.0f
#define TILE_ROWS 1
#define TILE_COLUMNS 1
#include "float_rows.inc.h"
