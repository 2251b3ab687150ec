/* Operands and products of attention for training on AMX. Needs TARGET, NAME(name), tiles.inc.h, transpose.inc.h,
   squares.inc.h and train_attention.h. Matrices of squares are [SPAN][SPAN] in float; scores stand on their side, [key][query]. */

/* A head of a row of tokens, [padded, size], zeros behind its end. */
static void gather(const train_attention *a, const void *all, int64_t at, int64_t stride, uint16_t *to) {
    const uint16_t *from = (const uint16_t *)all + at;
    for (int64_t n = 0; n < a->length; n++) memcpy(to + n * a->size, from + n * stride, (size_t)a->size * 2);
    memset(to + a->length * a->size, 0, (size_t)((padded(a->length) - a->length) * a->size) * 2);
}

/* SPAN rows, tiles [16 rows][step of 32 numbers] on their side, [pair of numbers][16 rows][2]: an operand of sums over
   numbers. */
TARGET INLINE void on_side(const uint16_t *from, int64_t size, uint16_t *to) {
    for (int64_t r = 0; r < SPAN; r += 16)
        for (int64_t d = 0; d < size; d += 32, to += TILE) {
            __m512i v[16];
            for (int64_t i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(from + (r + i) * size + d);
            NAME(transpose_words)(v);
            for (int64_t i = 0; i < 16; i++) _mm512_store_si512(to + i * 32, v[i]);
        }
}

/* Rows in pairs, tiles [32 rows][16 numbers] as [pair of rows][16 numbers][2]: an operand of sums over rows. */
TARGET INLINE void in_pairs(const uint16_t *from, int64_t rows, int64_t size, uint16_t *to) {
    const interleave turn = interleaving();
    for (int64_t r = 0; r < rows; r += 32)
        for (int64_t d = 0; d < size; d += 32, to += 2 * TILE)
            for (int64_t i = 0; i < 16; i++) {
                const uint16_t *x = from + (r + 2 * i) * size + d;
                pair_rows(&turn, _mm512_loadu_si512(x), _mm512_loadu_si512(x + size), to + i * 32, to + TILE + i * 32);
            }
}

/* Columns as rows: tiles [32 rows][16 numbers] as [16 numbers][32 rows]. */
TARGET INLINE void turned(const uint16_t *from, int64_t rows, int64_t size, uint16_t *to) {
    in_pairs(from, rows, size, to);
    for (int64_t tile = 0; tile < rows / 32 * (size / 16); tile++, to += TILE) {
        __m512i v[16];
        for (int64_t i = 0; i < 16; i++) v[i] = _mm512_load_si512(to + i * 32);
        NAME(transpose_words)(v);
        for (int64_t i = 0; i < 16; i++) _mm512_store_si512(to + i * 32, v[i]);
    }
}

/* A square of SPAN rows by SPAN rows that lie on their side, sums over `size` numbers. */
TARGET INLINE void square(const uint16_t *rows, const uint16_t *side, int64_t size, float *to) {
    const int64_t steps = size / 32;
    zero_sums();
    for (int64_t s = 0; s < steps; s++) {
        _tile_loadd(4, rows + 32 * s, size * 2);
        _tile_loadd(5, rows + 16 * size + 32 * s, size * 2);
        _tile_loadd(6, side + s * TILE, 64);
        _tile_loadd(7, side + (steps + s) * TILE, 64);
        multiply_square();
    }
    store_square(to, SPAN);
}

/* to [size][SPAN queries]: turned rows by weights, sums over all keys. `side` holds, for each square of keys, size / 16
   tiles of turned rows; `pairs` two tiles of weights in pairs. */
TARGET INLINE void mix(const uint16_t *side, const uint16_t *pairs, int64_t squares, int64_t size, float *to) {
    const int64_t tiles = size / 16;
    for (int64_t d = 0; d < tiles; d += 2) {
        zero_sums();
        for (int64_t s = 0; s < squares; s++) {
            _tile_loadd(4, side + (s * tiles + d) * TILE, 64);
            _tile_loadd(5, side + (s * tiles + d + 1) * TILE, 64);
            _tile_loadd(6, pairs + 2 * s * TILE, 64);
            _tile_loadd(7, pairs + (2 * s + 1) * TILE, 64);
            multiply_square();
        }
        store_square(to + 16 * d * SPAN, SPAN);
    }
}

/* Which of 16 queries see a key: the first half of them or the second. */
TARGET INLINE __mmask16 sees(const queries *q, int64_t half, int64_t key) {
    const __m512i at = _mm512_set1_epi32((int)key), starts = _mm512_loadu_si512(q->starts + 16 * half);
    return _mm512_cmple_epi32_mask(starts, at) & _mm512_cmple_epi32_mask(at, _mm512_loadu_si512(q->places + 16 * half));
}

/* Columns [size][SPAN] as rows of tokens from `to` on, each times its factor; those that are there. */
TARGET INLINE void put(const float *columns, int64_t size, const __m512 *factor, int64_t count, uint16_t *to,
                       int64_t stride) {
    for (int64_t half = 0; half < 2; half++)
        for (int64_t d = 0; d < size; d += 16) {
            __m512i v[16];
            for (int64_t i = 0; i < 16; i++)
                v[i] = (__m512i)_mm512_mul_ps(_mm512_load_ps(columns + (d + i) * SPAN + 16 * half), factor[half]);
            NAME(transpose_words)(v);
            for (int64_t i = 0; i < 16 && 16 * half + i < count; i++)
                _mm256_storeu_si256((__m256i *)(to + (16 * half + i) * stride + d),
                                    (__m256i)_mm512_cvtneps_pbh((__m512)v[i]));
        }
}
