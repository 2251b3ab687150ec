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

INLINE vec4 set4(float value) { return (vec4){value, value, value, value}; }

INLINE float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    float small = (float)(rest & 0x3ff) * 0x1p-24f; /* subnormal */
    uint32_t bits = rest < 0x400 ? float_to_bits(small) : (rest << 13) + (rest < 0x7c00 ? 112u << 23 : 224u << 23);
    return bits_to_float(bits | sign);
}

typedef int32_t int4 __attribute__((vector_size(16)));
typedef uint32_t uint4 __attribute__((vector_size(16)));

INLINE void signed_bytes(const uint8_t *w, int4 *v) {
    int32_t wide[32];
    for (int i = 0; i < 32; i++) wide[i] = (int8_t)w[i];
    memcpy(v, wide, sizeof wide);
}

/* The code's fields moved into those of a float are the value times 2^-120. A code of a subnormal, which would be a
   subnormal float too and slow, counts its mantissa in 2^-9 instead. */
INLINE void portable_widen_fp8(const uint8_t *w, vec4 *v) {
    int4 codes[8];
    signed_bytes(w, codes);
    for (int p = 0; p < 8; p++) {
        int4 code = codes[p], rest = code & 0x7f;
        int4 large = (rest << 20) + (120 << 23), small = (int4)(__builtin_convertvector(rest, vec4) * 0x1p-9f);
        int4 is_small = rest < 8;
        v[p] = (vec4)((small & is_small) | (large & ~is_small) | (code & (int4)((uint4){1, 1, 1, 1} << 31)));
    }
}

INLINE void portable_widen_bf16(const uint8_t *w, vec4 *v) {
    for (int p = 0; p < 8; p++) {
        uint16_t word[4];
        memcpy(word, w + 8 * p, sizeof word);
        v[p] = (vec4)((uint4){word[0], word[1], word[2], word[3]} << 16);
    }
}

INLINE void portable_widen_int8(const uint8_t *w, vec4 *v) {
    int4 bytes[8];
    signed_bytes(w, bytes);
    for (int p = 0; p < 8; p++) v[p] = __builtin_convertvector(bytes[p], vec4);
}

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
#define SET1 set4
#define TOTAL(v) (((v)[0] + (v)[2]) + ((v)[1] + (v)[3]))
#define FP8_FACTOR 1.0f
#define TILE_ROWS 1
#define TILE_COLUMNS 1
#define COLUMNS 6
#include "float_rows.inc.h"
