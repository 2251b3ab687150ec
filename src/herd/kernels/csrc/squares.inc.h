/* Squares of 32 x 32 sums in training on AMX. Needs TARGET and tiles.inc.h. */

/* The four tiles of sums, two beside one another and two beneath, += operands 4 above 5 by 6 beside 7. */
TARGET INLINE void multiply_square(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* [32][32] of a matrix, `stride` numbers from row to row. */
TARGET INLINE void load_square(const float *from, int64_t stride) {
    _tile_loadd(0, from, stride * 4);
    _tile_loadd(1, from + 16, stride * 4);
    _tile_loadd(2, from + 16 * stride, stride * 4);
    _tile_loadd(3, from + 16 * stride + 16, stride * 4);
}

TARGET INLINE void store_square(float *to, int64_t stride) {
    _tile_stored(0, to, stride * 4);
    _tile_stored(1, to + 16, stride * 4);
    _tile_stored(2, to + 16 * stride, stride * 4);
    _tile_stored(3, to + 16 * stride + 16, stride * 4);
}
