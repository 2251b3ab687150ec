/* A square of 16 x 16 words of 32 bits, turned on its side. Needs TARGET for AVX512, and NAME(name). */

TARGET INLINE void NAME(transpose_words)(__m512i *v) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) { /* b[4 r + i]: column 4 l + i of rows 4 r to 4 r + 3, in each quarter l */
        const __m512i low = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
        const __m512i low2 = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
        const __m512i high2 = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
        v[i] = _mm512_shuffle_i32x4(low, high, 0x88);
        v[8 + i] = _mm512_shuffle_i32x4(low, high, 0xdd);
        v[4 + i] = _mm512_shuffle_i32x4(low2, high2, 0x88);
        v[12 + i] = _mm512_shuffle_i32x4(low2, high2, 0xdd);
    }
}
