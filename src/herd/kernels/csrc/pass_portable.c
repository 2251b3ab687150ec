/* Any processor: four lanes by the compiler's own vectors, no instructions by name. */
#include "train.h"

#define TARGET
#define NAME(name) portable_##name
#define LANES 4
typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));
#define VEC vec4
#define SET1(x) ((vec4){(x), (x), (x), (x)})
#define BLEND(which, yes, no) ((vec4)(((int4)(yes) & (which)) | ((int4)(no) & ~(which))))
#define ROUND(x) (((x) + SET1(0x1.8p+23f)) - SET1(0x1.8p+23f))
#define TIMES_2_TO(p, n) /* 0 where that is no normal number */                                                         \
    NAME(choose)((n) < SET1(-126.0f), SET1(0.0f), (VEC)((INTS)(p) + (__builtin_convertvector(n, INTS) << 23)))
#define FMA(a, b, c) ((a) * (b) + (c))
#define TOTAL(v) (((v)[0] + (v)[2]) + ((v)[1] + (v)[3]))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define TOP(v) LARGER(LARGER((v)[0], (v)[1]), LARGER((v)[2], (v)[3]))
#define RECIPROCAL(x) (SET1(1.0f) / (x))
#define TILE_ROWS 4
#define TILE_VECTORS 2

INLINE void transpose(vec4 *v) {
    const vec4 a = v[0], b = v[1], c = v[2], d = v[3];
    for (int i = 0; i < 4; i++) v[i] = (vec4){a[i], b[i], c[i], d[i]};
}

INLINE vec4 widen_bf16(const uint16_t *p) {
    vec4 v;
    for (int i = 0; i < 4; i++) v[i] = bits_to_float((uint32_t)p[i] << 16);
    return v;
}

INLINE vec4 widen_e4m3(const uint8_t *p) {
    vec4 v;
    for (int i = 0; i < 4; i++) v[i] = e4m3_value(p[i]);
    return v;
}

INLINE void narrow_bf16(uint16_t *p, vec4 v) {
    for (int i = 0; i < 4; i++) p[i] = (uint16_t)(float_to_bits(v[i]) >> 16);
}

INLINE vec4 square_roots(vec4 v) {
    for (int i = 0; i < 4; i++) v[i] = __builtin_sqrtf(v[i]);
    return v;
}

#define SQRT square_roots
#define TRANSPOSE transpose
#define WIDEN_BF16 widen_bf16
#define WIDEN_E4M3 widen_e4m3
#define NARROW_BF16 narrow_bf16
#include "prepare.inc.h"
#include "vectors.inc.h"
#include "attention.inc.h"
#include "elementwise.inc.h"
#include "train.inc.h"
