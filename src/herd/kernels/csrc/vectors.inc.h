/* Vectors of floats: exp, rounding to bfloat16, numbers read and written. Included by each level, which gives TARGET,
   NAME(name), VEC (LANES floats) with FMA, SET1, BLEND, ROUND, TIMES_2_TO, TOTAL, TOP, TRANSPOSE, and its ways to widen
   and to narrow. Other arithmetic is the compiler's own. */

typedef int32_t NAME(ints) __attribute__((vector_size(4 * LANES)));
#define INTS NAME(ints)

TARGET INLINE VEC NAME(load)(const float *p) {
    VEC v;
    memcpy(&v, p, sizeof v);
    return v;
}

TARGET INLINE void NAME(store)(float *p, VEC v) { memcpy(p, &v, sizeof v); }

TARGET INLINE VEC NAME(choose)(INTS which, VEC yes, VEC no) { return BLEND(which, yes, no); }

/* exp(x) to about one unit in the last place, for x of at most 88; 0 below -87.3, and NaN of NaN. */
TARGET INLINE VEC NAME(exp)(VEC x) {
    const VEC n = ROUND(x * SET1(1.44269504f));
    const VEC r = FMA(n, SET1(2.12194440e-4f), FMA(n, SET1(-0.693359375f), x));
    VEC p = SET1(1.9875691500e-4f); /* the polynomial of Cephes' expf */
    p = FMA(p, r, SET1(1.3981999507e-3f));
    p = FMA(p, r, SET1(8.3334519073e-3f));
    p = FMA(p, r, SET1(4.1665795894e-2f));
    p = FMA(p, r, SET1(1.6666665459e-1f));
    p = FMA(p, r, SET1(5.0000001201e-1f));
    p = FMA(p, r * r, r) + SET1(1.0f);
    return TIMES_2_TO(p, n);
}

/* The nearest bfloat16 as a float, ties to even. NaN stays, for what is made of bfloat16 has its mark in the upper half. */
TARGET INLINE VEC NAME(to_bf16)(VEC v) {
    const INTS bits = (INTS)v;
    return (VEC)((bits + 0x7fff + (bits >> 16 & 1)) & (INTS)SET1(bits_to_float(0xffff0000u)));
}

TARGET INLINE VEC NAME(rounded)(VEC v, int type) { return type == BFLOAT16 ? NAME(to_bf16)(v) : v; }

/* `count` numbers, zeros behind them: LANES at most. */
TARGET INLINE VEC NAME(read_some)(const void *from, int type, int64_t i, int64_t count) {
    float some[LANES] = {0};
    for (int64_t j = 0; j < count; j++)
        some[j] = number_at(from, type, i + j);
    return NAME(load)(some);
}

TARGET INLINE VEC NAME(read)(const void *from, int type, int64_t i) {
    if (type == FLOAT32) return NAME(load)((const float *)from + i);
    if (type == BFLOAT16) return WIDEN_BF16((const uint16_t *)from + i);
    return WIDEN_E4M3((const uint8_t *)from + i);
}

/* Already rounded numbers. */
TARGET INLINE void NAME(write)(void *to, int type, int64_t i, VEC v, int64_t count) {
    float some[LANES];
    if (type == FLOAT32 && count >= LANES) {
        NAME(store)((float *)to + i, v);
        return;
    }
    if (type == BFLOAT16 && count >= LANES) {
        NARROW_BF16((uint16_t *)to + i, v);
        return;
    }
    NAME(store)(some, v);
    for (int64_t j = 0; j < count && j < LANES; j++)
        if (type == FLOAT32) ((float *)to)[i + j] = some[j];
        else ((uint16_t *)to)[i + j] = (uint16_t)(float_to_bits(some[j]) >> 16);
}
