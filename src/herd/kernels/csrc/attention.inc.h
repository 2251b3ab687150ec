/* Attention in floats, at each level. Needs vectors.inc.h, and the tile of TILE_ROWS x TILE_VECTORS of its registers.

   Keys of a block are turned on their side, so that both products are the same: rows of numbers by a matrix whose
   columns lie beside one another in vectors. Each sum runs over its inner index in order, alone in its lane: what is
   added for keys that a query may not see is 0 and changes no bit. */

/* c [rows, width] (+)= a [rows, inner] b [inner, width] for a tile; width in vectors. */
TARGET INLINE void NAME(tile)(const int height, const int vectors, int64_t inner, const float *a, int64_t a_stride,
                              const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    VEC sums[TILE_ROWS][TILE_VECTORS];
    for (int r = 0; r < height; r++)
        for (int i = 0; i < vectors; i++) sums[r][i] = add ? NAME(load)(c + r * c_stride + i * LANES) : SET1(0.0f);
    for (int64_t k = 0; k < inner; k++) {
        VEC column[TILE_VECTORS];
        for (int i = 0; i < vectors; i++) column[i] = NAME(load)(b + k * b_stride + i * LANES);
        for (int r = 0; r < height; r++) {
            const VEC one = SET1(a[r * a_stride + k]);
            for (int i = 0; i < vectors; i++) sums[r][i] = FMA(one, column[i], sums[r][i]);
        }
    }
    for (int r = 0; r < height; r++)
        for (int i = 0; i < vectors; i++) NAME(store)(c + r * c_stride + i * LANES, sums[r][i]);
}

TARGET INLINE void NAME(multiply)(int64_t rows, int64_t inner, int64_t width, const float *a, int64_t a_stride,
                                  const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    const int64_t step = TILE_VECTORS * LANES;
    for (int64_t n = 0; n < width; n += step) {
        const int whole = n + step <= width;
        int64_t r = 0;
        for (; whole && r + TILE_ROWS <= rows; r += TILE_ROWS)
            NAME(tile)(TILE_ROWS, TILE_VECTORS, inner, a + r * a_stride, a_stride, b + n, b_stride,
                       c + r * c_stride + n, c_stride, add);
        for (; r < rows; r++) {
            const float *row = a + r * a_stride;
            float *to = c + r * c_stride;
            if (whole) NAME(tile)(1, TILE_VECTORS, inner, row, 0, b + n, b_stride, to + n, 0, add);
            for (int64_t i = n; !whole && i < width; i += LANES)
                NAME(tile)(1, 1, inner, row, 0, b + i, b_stride, to + i, 0, add);
        }
    }
}

/* A key or a value as floats, zeros behind it. */
TARGET INLINE VEC NAME(some)(const attention *a, const char *from, int64_t d, float scale) {
    const int64_t left = a->size - d;
    uint8_t rest[4 * LANES] = {0};
    if (left < LANES) {
        if (left > 0) memcpy(rest, from + d * bytes_of(a->cache_type), (size_t)(left * bytes_of(a->cache_type)));
        return NAME(read)(rest, a->cache_type, 0) * SET1(scale);
    }
    const VEC v = NAME(read)(from, a->cache_type, d);
    if (a->cache_type != E4M3) return v;
    return v * SET1(scale);
}

/* The keys of a span as [size, BLOCK], zeros behind the last, and its values as [keys, size]. */
TARGET INLINE void NAME(widen)(state *s, const span *p) {
    const attention *a = s->a;
    const int64_t bytes = a->size * bytes_of(a->cache_type), keys = p->to - p->from;
    const char *all_keys = a->keys, *all_values = a->values;
    float *k = s->k, *v = s->v;
    for (int64_t j = 0; j < keys; j += LANES)
        for (int64_t d = 0; d < s->size_padded; d += LANES) {
            VEC square[LANES];
            for (int64_t i = 0; i < LANES; i++) {
                if (j + i >= keys) square[i] = SET1(0.0f);
                else square[i] = NAME(some)(a, all_keys + p->slots[j + i] * bytes, d, scale_of(a->key_scale, p, j + i));
            }
            TRANSPOSE(square);
            for (int64_t i = 0; i < LANES; i++) NAME(store)(k + (d + i) * BLOCK + j, square[i]);
        }
    for (int64_t j = 0; j < keys; j++)
        for (int64_t d = 0; d < s->size_padded; d += LANES)
            NAME(store)(v + j * s->size_padded + d,
                        NAME(some)(a, all_values + p->slots[j] * bytes, d, scale_of(a->value_scale, p, j)));
}

/* Scores of a row become weights; what was summed before shrinks where a larger score came. */
TARGET INLINE void NAME(weigh)(state *s, const span *p, int64_t row) {
    const int64_t keys = p->to - p->from, width = (keys + LANES - 1) / LANES * LANES;
    const int64_t seen = s->last[row] - p->from + 1, limit = seen < keys ? seen : keys;
    float *scores = s->scores + row * BLOCK, *mixed = s->mixed + row * s->size_padded;
    VEC most = SET1(UNSEEN), sum = SET1(0.0f);
    for (int64_t j = limit < 0 ? 0 : limit; j < width; j++) scores[j] = -__builtin_inff();
    for (int64_t j = 0; j < width; j += LANES) {
        const VEC x = NAME(load)(scores + j);
        most = NAME(choose)(x > most, x, most);
    }
    const float before = s->top[row], found = TOP(most), top = found > before ? found : before;
    for (int64_t j = 0; j < width; j += LANES) {
        const VEC weight = NAME(exp)(NAME(load)(scores + j) - SET1(top));
        NAME(store)(scores + j, weight);
        sum = sum + weight;
    }
    if (top != before) {
        const VEC shrink = NAME(exp)(SET1(before - top));
        s->total[row] *= shrink[0];
        for (int64_t d = 0; d < s->size_padded; d += LANES) NAME(store)(mixed + d, NAME(load)(mixed + d) * shrink);
    }
    s->top[row] = top;
    s->total[row] += TOTAL(sum);
}

TARGET static void NAME(attend)(state *s, const span *p) {
    const int64_t size = s->size_padded, keys = p->to - p->from, rows = p->end - p->first;
    const float *q = (const float *)s->q + p->first * size;
    NAME(widen)(s, p);
    NAME(multiply)(rows, s->a->size, (keys + LANES - 1) / LANES * LANES, q, size, s->k, BLOCK,
                   s->scores + p->first * BLOCK, BLOCK, 0);
    for (int64_t row = p->first; row < p->end; row++) NAME(weigh)(s, p, row);
    NAME(multiply)(rows, keys, size, s->scores + p->first * BLOCK, BLOCK, s->v, size, s->mixed + p->first * size, size,
                   1);
}

/* A query, times 1 / sqrt(size). */
TARGET static void NAME(load_query)(state *s, int64_t row, const void *q) {
    const int64_t size = s->a->size;
    const VEC scale = SET1(1.0f / __builtin_sqrtf((float)size));
    for (int64_t d = 0; d < s->size_padded; d += LANES) {
        const int64_t left = size - d;
        const VEC v = left < LANES ? NAME(read_some)(q, s->a->q_type, d, left) : NAME(read)(q, s->a->q_type, d);
        NAME(store)((float *)s->q + row * s->size_padded + d, v * scale);
    }
}

TARGET static void NAME(fold)(state *into, const state *part, int64_t row) {
    const float a = into->top[row], b = part->top[row], top = b > a ? b : a;
    const VEC keep = NAME(exp)(SET1(a - top)), take = NAME(exp)(SET1(b - top));
    float *mixed = into->mixed + row * into->size_padded;
    const float *more = part->mixed + row * into->size_padded;
    for (int64_t d = 0; d < into->size_padded; d += LANES)
        NAME(store)(mixed + d, NAME(load)(mixed + d) * keep + NAME(load)(more + d) * take);
    into->total[row] = into->total[row] * keep[0] + part->total[row] * take[0];
    into->top[row] = top;
}

TARGET static void NAME(finish_row)(const state *s, int64_t row, void *out) {
    const VEC share = SET1(1.0f / s->total[row]);
    const float *mixed = s->mixed + row * s->size_padded;
    for (int64_t d = 0; d < s->a->size; d += LANES)
        NAME(write)(out, s->a->q_type, d, NAME(rounded)(NAME(load)(mixed + d) * share, s->a->q_type), s->a->size - d);
}
