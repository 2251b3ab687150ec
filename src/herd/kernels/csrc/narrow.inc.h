/* Weights as bfloat16, 64 at a time, exactly: shared by the levels that multiply bfloat16. Needs TARGET.

   e4m3 becomes bfloat16 by two table look-ups of 128 bytes, for all codes, NaN and subnormals too: as 2^8 times its
   value, whose exponent is that of the code with the bit of 128 before it. Activations make up for it by 2^-8, so that
   products and sums are the same to the bit; those under 2^-118 count as zero. */

typedef struct {
    __m512i high[2], low[2]; /* the upper and the lower byte of each code's bfloat16 */
} tables;

TARGET INLINE tables make_tables(void) {
    uint8_t high[128], low[128];
    for (uint32_t code = 0; code < 128; code++) {
        uint32_t bits = code == 0x7f ? 0x7fc0 : (code << 4) + (128u << 7);
        if (code < 8) bits = float_to_bits((float)code * 0x1p-9f * 0x1p8f) >> 16;
        high[code] = (uint8_t)(bits >> 8);
        low[code] = (uint8_t)bits;
    }
    return (tables){{_mm512_loadu_si512(high), _mm512_loadu_si512(high + 64)},
                    {_mm512_loadu_si512(low), _mm512_loadu_si512(low + 64)}};
}

/* 64 weights as two vectors of bfloat16. e4m3 comes out in the order of `place`: eight by eight of each sixteen. */
TARGET INLINE void narrow(enum format format, const tables *t, const uint8_t *w, __m512i *v) {
    if (format == BF16) {
        v[0] = _mm512_loadu_si512(w);
        v[1] = _mm512_loadu_si512(w + 64);
        return;
    }
    __m512i code = _mm512_loadu_si512(w);
    __m512i low = _mm512_permutex2var_epi8(t->low[0], code, t->low[1]);
    __m512i high = _mm512_permutex2var_epi8(t->high[0], code, t->high[1]);
    high = _mm512_ternarylogic_epi64(high, code, _mm512_set1_epi8((char)0x80), 0xf8); /* high | (code & 0x80) */
    v[0] = _mm512_unpacklo_epi8(low, high);
    v[1] = _mm512_unpackhi_epi8(low, high);
}

INLINE int64_t place(int64_t i) { return (i & ~63) | (i & 8) << 2 | (i & 48) >> 1 | (i & 7); }

/* Activations as bfloat16, which holds them exactly; `placed`: in the order and the measure in which `narrow` gives
   e4m3. */
TARGET INLINE void narrow_x(const float *wide, int64_t k_padded, int placed, uint16_t *to) {
    const float measure = placed ? 0x1p-8f : 1.0f;
    for (int64_t i = 0; i < k_padded; i += 8)
        for (int64_t l = 0; l < 8; l++)
            to[(placed ? place(i) : i) + l] = (uint16_t)(float_to_bits(wide[i + l] * measure) >> 16);
}

INLINE int64_t width_of(enum format format) { return format == BF16 ? 2 : 1; }

/* The last weights of a row, with zeros behind them. */
TARGET INLINE void narrow_rest(enum format format, const tables *t, const job *j, const uint8_t *w, __m512i *v) {
    uint8_t rest[128] = {0};
    int64_t whole = j->k / 64 * 64;
    memcpy(rest, w + whole * width_of(format), (size_t)((j->k - whole) * width_of(format)));
    narrow(format, t, rest, v);
}
