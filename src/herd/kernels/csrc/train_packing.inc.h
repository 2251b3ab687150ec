/* Operands of training's products as tiles of bfloat16: of floats three planes of them, whose sum a float is. Needs
   TARGET, NAME(name), tiles.inc.h, transpose.inc.h and pass.h. */

#define SPAN 32 /* rows and columns of a square of sums */

/* Numbers (r, l) of a, or of b on its side, at r * row + l * step: sums are over l. */
typedef struct {
    const char *at;
    int64_t row, step, rows, k;
    int64_t first, steps; /* of 32 sums: those that are packed now */
    int type;
} operand;

INLINE __mmask16 lanes(int64_t count) {
    return count >= SIDE ? 0xffff : count > 0 ? (__mmask16)((1u << count) - 1) : 0;
}

TARGET INLINE __m512 widened(__m256i half) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16); }

TARGET INLINE __m512 read(const operand *o, int64_t r, int64_t l, __mmask16 which) {
    const int64_t at = r * o->row + l * o->step;
    if (o->type == FLOAT32) return _mm512_maskz_loadu_ps(which, (const float *)o->at + at);
    return widened(_mm256_maskz_loadu_epi16(which, (const uint16_t *)o->at + at));
}

/* 32 numbers, each as `planes` bfloat16; one plane is two tiles behind the other. */
TARGET INLINE void split(__m512 low, __m512 high, const __m512i *order, const int planes, uint16_t *to) {
    for (int plane = 0; plane < planes; plane++) {
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_store_si512(to + plane * 2 * TILE, order ? _mm512_permutexvar_epi16(*order, both) : both);
        low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(both)));
        high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64(both, 1)));
    }
}

/* SPAN rows where the sums of each follow one another, tiles [16 r][32 l] of all steps. */
TARGET INLINE void fill_along(const operand *o, int64_t r, int64_t first, int64_t steps, const int planes,
                              uint16_t *to) {
    for (int64_t i = 0; i < SPAN; i++) {
        uint16_t *at = to + i / SIDE * TILE + i % SIDE * 32;
        const int64_t there = r + i < o->rows ? o->k - first : 0;
        for (int64_t step = 0; step < steps; step++, at += planes * 2 * TILE) {
            const int64_t l = first + 32 * step, left = there - 32 * step;
            const __m512 low = read(o, r + i, l, lanes(left)), high = read(o, r + i, l + SIDE, lanes(left - SIDE));
            split(low, high, NULL, planes, at);
        }
    }
}

/* Tiles [pair of l][16 r][2] where rows follow one another. */
TARGET INLINE void fill_pairs(const operand *o, int64_t r, int64_t l, const __m512i *order, const int planes,
                              uint16_t *to) {
    const __mmask16 which = lanes(o->rows - r);
    for (int64_t i = 0; i < SIDE; i++) {
        const int64_t at = l + 2 * i;
        const __m512 one = read(o, r, at, at < o->k ? which : 0), other = read(o, r, at + 1, at + 1 < o->k ? which : 0);
        split(one, other, order, planes, to + 32 * i);
    }
}

TARGET INLINE void lay_on_side(const int planes, uint16_t *tile) {
    for (int plane = 0; plane < planes; plane++, tile += 2 * TILE) {
        __m512i v[SIDE];
        for (int i = 0; i < SIDE; i++) v[i] = _mm512_load_si512(tile + 32 * i);
        NAME(transpose_words)(v);
        for (int i = 0; i < SIDE; i++) _mm512_store_si512(tile + 32 * i, v[i]);
    }
}

/* Tiles [16 r][32 l] where rows follow one another: floats are turned before there are three of each. */
TARGET INLINE void fill_across(const operand *o, int64_t r, int64_t l, const __m512i *order, const int planes,
                               uint16_t *to) {
    if (planes == 1) {
        fill_pairs(o, r, l, order, planes, to);
        lay_on_side(planes, to);
        return;
    }
    __m512i low[SIDE], high[SIDE];
    const __mmask16 which = lanes(o->rows - r);
    for (int64_t i = 0; i < SIDE; i++) {
        low[i] = (__m512i)read(o, r, l + i, l + i < o->k ? which : 0);
        high[i] = (__m512i)read(o, r, l + SIDE + i, l + SIDE + i < o->k ? which : 0);
    }
    NAME(transpose_words)(low);
    NAME(transpose_words)(high);
    for (int64_t i = 0; i < SIDE; i++) split((__m512)low[i], (__m512)high[i], NULL, planes, to + 32 * i);
}

/* Rows [begin, end), whole SPANs, by steps [from, till) of those behind o->first: [rows / SPAN][o->steps][planes][2]
   tiles. Memory is read in the order in which it lies. */
TARGET INLINE void pack(const operand *o, int64_t begin, int64_t end, int64_t from, int64_t till, int of_b,
                        const int planes, uint16_t *to) {
    const int64_t size = planes * 2 * TILE;
    uint16_t turn[32];
    for (int i = 0; i < 32; i++) turn[i] = (uint16_t)(i / 2 + i % 2 * 16);
    const __m512i order = _mm512_loadu_si512(turn);
    if (o->step == 1) {
        for (int64_t r = begin; r < end; r += SPAN) {
            uint16_t *at = to + ((r - begin) / SPAN * o->steps + from) * size;
            fill_along(o, r, o->first + 32 * from, till - from, planes, at);
            for (int64_t i = 0; of_b && i < 2 * (till - from); i++)
                lay_on_side(planes, at + i / 2 * size + i % 2 * TILE);
        }
        return;
    }
    for (int64_t step = from; step < till; step++)
        for (int64_t r = begin; r < end; r += SIDE) {
            uint16_t *at = to + ((r - begin) / SPAN * o->steps + step) * size + (r - begin) / SIDE % 2 * TILE;
            if (of_b) fill_pairs(o, r, o->first + 32 * step, &order, planes, at);
            else fill_across(o, r, o->first + 32 * step, &order, planes, at);
        }
}
