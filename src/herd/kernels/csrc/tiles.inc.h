/* What the files of the AMX level share. A tile holds 16 rows of 64 bytes; tiles 0 to 3 are sums, the others operands.
   Needs TARGET. */

#define SIDE 16                /* rows and columns of a tile of sums */
#define TILE (SIDE * SIDE * 2) /* bfloat16 numbers of a tile of operands: 16 rows of 32, or 16 pairs of rows of 16 */
#define LOG2_E 1.44269504f

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 4 and 5 are whole; the others are `columns` words of four bytes wide. */
TARGET INLINE void configure_tiles(int64_t columns) {
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? 64 : 4 * columns);
        config.rows[i] = SIDE;
    }
    _tile_loadconfig(&config);
}

TARGET INLINE void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Two rows of 32 numbers as pairs of neighbours above one another, an operand of sums over rows: [16 numbers][2] of
   their left halves, and of their right ones. */
typedef struct {
    __m512i left, right;
} interleave;

TARGET INLINE interleave interleaving(void) {
    uint16_t left[32], right[32];
    for (int i = 0; i < 32; i++) {
        left[i] = (uint16_t)(i / 2 + i % 2 * 32);
        right[i] = (uint16_t)(16 + i / 2 + i % 2 * 32);
    }
    return (interleave){_mm512_loadu_si512(left), _mm512_loadu_si512(right)};
}

/* `left` and `right` lie on whole lines. */
TARGET INLINE void pair_rows(const interleave *turn, __m512i x, __m512i y, uint16_t *left, uint16_t *right) {
    _mm512_store_si512(left, _mm512_permutex2var_epi16(x, turn->left, y));
    _mm512_store_si512(right, _mm512_permutex2var_epi16(x, turn->right, y));
}

/* 2^x; 0 where that is no normal number (such numbers cost a hundred times as much), also of minus infinity; NaN of
   NaN. */
TARGET INLINE __m512 power_of_2(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, 8), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.339086336e-03f); /* Chebyshev's interpolation on [-1/2, 1/2], to 2e-7 */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.676031918e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550357114e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402210749e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931471880e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000000075f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p, n);
}
