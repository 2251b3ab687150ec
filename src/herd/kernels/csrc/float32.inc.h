/* Products in float32. Lanes are rows of W: each sum takes one column after the other, whatever M is. Included by
   float_rows.inc.h; COLUMNS rows of x against HEIGHT rows of W fill the registers. TURN is optional. */

#define HEIGHT (2 * LANES)
#define STRETCH 128    /* columns of W that are turned at a time: with those of x they stay in the first-level cache */
#define F32_AHEAD 1024 /* bytes to prefetch ahead in each row, into the second-level cache */

INLINE int64_t NAME(columns)(const job *j) { return j->m < COLUMNS ? j->m : COLUMNS; }

/* `count` columns of at most HEIGHT rows of W as [column][HEIGHT]; rows that are not there are copies of the last. */
TARGET INLINE void NAME(turn_rows)(const job *j, int64_t n, int64_t height, int64_t first, int64_t count, float *to) {
    const uint8_t *w = j->weight + n * j->row_bytes + first * 4;
    for (int64_t r = 0; r < height; r++)
        for (int64_t i = 0; i < count * 4; i += 64) {
            const int64_t ahead = i + F32_AHEAD, left = (j->k - first) * 4; /* behind the end: HEIGHT rows on */
            __builtin_prefetch(w + r * j->row_bytes + ahead + (ahead < left ? 0 : HEIGHT * j->row_bytes - 4 * j->k), 0, 2);
        }
    int64_t c = 0;
#ifdef TURN
    for (; height == HEIGHT && c + LANES <= count; c += LANES)
        for (int64_t r = 0; r < HEIGHT; r += LANES)
            TURN(w + r * j->row_bytes + c * 4, j->row_bytes, to + c * HEIGHT + r, HEIGHT);
#endif
    for (int64_t r = 0; r < HEIGHT; r++) {
        const uint8_t *row = w + (r < height ? r : height - 1) * j->row_bytes;
        for (int64_t i = c; i < count; i++) memcpy(to + i * HEIGHT + r, row + i * 4, 4);
    }
}

/* `count` columns for `width` rows of x, which lie as [column][stride]; `sums` are [row of x][HEIGHT]. */
TARGET INLINE void NAME(add)(const float *w, const float *x, int64_t stride, int64_t count, int begun, float *sums,
                             const int width) {
    VEC s[COLUMNS][2];
    for (int c = 0; c < width; c++)
        for (int h = 0; h < 2; h++) s[c][h] = begun ? LOAD(sums + c * HEIGHT + h * LANES) : ZERO;
    for (int64_t i = 0; i < count; i++, w += HEIGHT, x += stride) {
        const VEC low = LOAD(w), high = LOAD(w + LANES);
        for (int c = 0; c < width; c++) {
            const VEC v = SET1(x[c]);
            s[c][0] = FMA(low, v, s[c][0]);
            s[c][1] = FMA(high, v, s[c][1]);
        }
    }
    for (int c = 0; c < width; c++)
        for (int h = 0; h < 2; h++) STORE(sums + c * HEIGHT + h * LANES, s[c][h]);
}

TARGET INLINE void NAME(strip)(const job *j, int64_t n, int64_t height, float *turned, float *sums) {
    const int64_t stride = NAME(columns)(j);
    for (int64_t first = 0; first < j->k; first += STRETCH) {
        const int64_t count = j->k - first < STRETCH ? j->k - first : STRETCH;
        NAME(turn_rows)(j, n, height, first, count, turned);
        for (int64_t m = 0, width; m < j->m; m += width) {
            const float *x = (const float *)j->prepared + m / COLUMNS * COLUMNS * j->k_padded + m % COLUMNS;
            float *own = sums + m * HEIGHT;
            width = j->m - m >= COLUMNS ? COLUMNS : j->m - m >= COLUMNS / 3 ? COLUMNS / 3 : 1;
            if (width == COLUMNS) NAME(add)(turned, x + first * stride, stride, count, first > 0, own, COLUMNS);
            else if (width == 1) NAME(add)(turned, x + first * stride, stride, count, first > 0, own, 1);
            else NAME(add)(turned, x + first * stride, stride, count, first > 0, own, COLUMNS / 3);
        }
    }
    for (int64_t m = 0; m < j->m; m++) {
        const float *own = sums + m * HEIGHT;
        if (j->x_type == X_FLOAT32) memcpy((float *)j->out + m * j->out_stride + n, own, (size_t)height * sizeof(float));
        else for (int64_t r = 0; r < height; r++) write_out(j, m, n + r, own[r]);
    }
}

TARGET static void NAME(rows_f32)(const job *j, int64_t begin, int64_t end, void *scratch) {
    float *turned = scratch;
    for (int64_t n = begin; n < end; n += HEIGHT)
        NAME(strip)(j, n, end - n < HEIGHT ? end - n : HEIGHT, turned, turned + STRETCH * HEIGHT);
}

/* `count` rows of activations as [column][stride]: all of them a column at a time, for `to` may exceed a cache. */
TARGET INLINE void NAME(place_rows)(const job *j, int64_t m, float *to, int64_t stride, const int64_t count) {
    const float *x = (const float *)j->x + m * j->x_stride;
    const uint16_t *narrow = (const uint16_t *)j->x + m * j->x_stride;
    if (j->x_type == X_FLOAT32)
        for (int64_t i = 0; i < j->k; i++, to += stride)
            for (int64_t c = 0; c < count; c++) to[c] = x[c * j->x_stride + i];
    else
        for (int64_t i = 0; i < j->k; i++, to += stride)
            for (int64_t c = 0; c < count; c++) to[c] = bits_to_float((uint32_t)narrow[c * j->x_stride + i] << 16);
}

TARGET static void NAME(prepare_f32)(const job *j, int64_t m, void *scratch) {
    float *to = (float *)j->prepared + m * j->k_padded;
    (void)scratch;
    if (j->m - m >= COLUMNS) NAME(place_rows)(j, m, to, COLUMNS, COLUMNS);
    else NAME(place_rows)(j, m, to, NAME(columns)(j), j->m - m);
}

static kernel NAME(kernel_f32)(void) {
    return (kernel){.prepare = NAME(prepare_f32), .rows = NAME(rows_f32), .x_bytes = sizeof(float),
                    .columns = COLUMNS, .most = 21 * COLUMNS, .piece = HEIGHT, .scratch = sizeof(float),
                    .scratch_row = HEIGHT * sizeof(float)};
}
