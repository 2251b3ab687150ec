/* Norms, SwiGLU and rotary positions, at each level. They round where the plain modules of `llama/` round. Needs
   vectors.inc.h. */
#define STRETCH 512 /* logits in which the largest is looked for once more */

TARGET INLINE VEC NAME(part)(const void *row, int type, int64_t i, int64_t width) {
    return width - i < LANES ? NAME(read_some)(row, type, i, width - i) : NAME(read)(row, type, i);
}

/* sum = x + y where there is a y; out = weight * round(sum / rms(sum)). */
TARGET static void NAME(norm)(const elementwise *e, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(e->type), width = e->width;
    for (int64_t n = begin; n < end; n++) {
        const void *row = (const char *)e->x + n * e->x_stride * bytes;
        const void *more = e->y ? (const char *)e->y + n * e->y_stride * bytes : 0;
        void *sum = more ? (char *)e->sum + n * width * bytes : 0, *out = (char *)e->out + n * width * bytes;
        VEC squares[2] = {SET1(0.0f), SET1(0.0f)};
        for (int64_t i = 0; i < width; i += LANES) {
            VEC v = NAME(part)(row, e->type, i, width);
            if (more) {
                v = NAME(rounded)(v + NAME(part)(more, e->type, i, width), e->type);
                NAME(write)(sum, e->type, i, v, width - i);
            }
            squares[i / LANES % 2] = FMA(v, v, squares[i / LANES % 2]);
        }
        const float mean = TOTAL(squares[0] + squares[1]) / (float)width;
        const VEC scale = SET1(1.0f / __builtin_sqrtf(mean + e->eps));
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC v = NAME(rounded)(NAME(part)(more ? sum : row, e->type, i, width) * scale, e->type);
            NAME(write)(out, e->type, i, NAME(rounded)(v * NAME(part)(e->weight, e->type, i, width), e->type), width - i);
        }
    }
}

/* out = round(silu(gate)) * up */
TARGET INLINE void NAME(mix)(const elementwise *e, int64_t begin, int64_t end, const int type) {
    const int64_t bytes = bytes_of(type), width = e->width;
    for (int64_t n = begin; n < end; n++) {
        const void *gate = (const char *)e->x + n * e->x_stride * bytes;
        const void *up = (const char *)e->y + n * e->y_stride * bytes;
        void *out = (char *)e->out + n * e->x_stride * bytes;
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC v = NAME(part)(gate, type, i, width);
            const INTS none = v < SET1(-87.0f); /* where exp(-v) would be beyond floats */
            const VEC growth = NAME(exp)(NAME(choose)(none, SET1(0.0f), SET1(0.0f) - v));
            const VEC below = SET1(1.0f) + growth, exact = type == FLOAT32 ? v / below : v * RECIPROCAL(below);
            const VEC silu = NAME(rounded)(NAME(choose)(none, SET1(0.0f), exact), type);
            NAME(write)(out, type, i, NAME(rounded)(silu * NAME(part)(up, type, i, width), type), width - i);
        }
    }
}

TARGET static void NAME(swiglu)(const elementwise *e, int64_t begin, int64_t end) {
    if (e->type == BFLOAT16) NAME(mix)(e, begin, end, BFLOAT16);
    else NAME(mix)(e, begin, end, FLOAT32);
}

/* The largest of `count` numbers; NaN is passed over. */
TARGET INLINE float NAME(most)(const float *row, int64_t count) {
    const int64_t whole = count / LANES * LANES;
    VEC top = SET1(-__builtin_inff());
    for (int64_t i = 0; i < whole; i += LANES) {
        const VEC v = NAME(load)(row + i);
        top = NAME(choose)(v > top, v, top);
    }
    float most = TOP(top);
    for (int64_t i = whole; i < count; i++) most = row[i] > most ? row[i] : most;
    return most;
}

/* exp(x - most); what is too little for a float is 0, minus infinity too. */
TARGET INLINE VEC NAME(share)(VEC x, float most) {
    const VEC v = x - SET1(most);
    return NAME(exp)(NAME(choose)(v < SET1(-100.0f), SET1(-100.0f), v));
}

/* Of a row of logits [3]: the largest, the sum of exp(logit - largest), and as an integer where it stands first. The sum
   is NaN where a logit is NaN or infinity. */
TARGET static void NAME(summary)(const elementwise *e, int64_t begin, int64_t end) {
    const int64_t width = e->width, whole = width / LANES * LANES;
    for (int64_t n = begin; n < end; n++) {
        const float *row = (const float *)e->x + n * e->x_stride;
        float *out = (float *)e->out + 3 * n, most = -__builtin_inff(), last[LANES] = {0};
        int64_t where = 0;
        for (int64_t i = 0; i < width; i += STRETCH) {
            const float here = NAME(most)(row + i, width - i < STRETCH ? width - i : STRETCH);
            if (!(here > most)) continue;
            most = here;
            where = i;
        }
        while (where < width - 1 && row[where] != most) where++;
        VEC totals[4] = {SET1(0.0f), SET1(0.0f), SET1(0.0f), SET1(0.0f)};
        for (int64_t i = 0; i < whole; i += LANES)
            totals[i / LANES % 4] += NAME(share)(NAME(load)(row + i), most);
        float sum = TOTAL((totals[0] + totals[1]) + (totals[2] + totals[3]));
        memcpy(last, row + whole, (size_t)(width - whole) * sizeof(float));
        NAME(store)(last, NAME(share)(NAME(load)(last), most));
        for (int64_t i = 0; i < width - whole; i++) sum += last[i];
        const int32_t first = (int32_t)where;
        out[0] = most;
        out[1] = sum;
        memcpy(out + 2, &first, sizeof first);
    }
}

/* Pairs (i, i + size / 2) of one head turned by their angles, rounded as the plain rotation is. */
TARGET INLINE void NAME(turn)(const elementwise *e, const void *from, const void *cos, const void *sin, void *to) {
    const int64_t half = e->width / 2;
    const int type = e->type;
    const char *second = (const char *)from + half * bytes_of(type);
    for (int64_t i = 0; i < half; i += LANES) {
        const VEC a = NAME(part)(from, type, i, half), b = NAME(part)(second, type, i, half);
        const VEC c = NAME(part)(cos, type, i, half), s = NAME(part)(sin, type, i, half);
        const VEC ac = NAME(rounded)(a * c, type), bc = NAME(rounded)(b * c, type);
        NAME(write)(to, type, i, NAME(rounded)(ac - b * s, type), half - i);
        NAME(write)((char *)to + half * bytes_of(type), type, i, NAME(rounded)(bc + a * s, type), half - i);
    }
}

/* One head of a token into its place of the cache; as e4m3 by `quantise`, whose scale it gives. */
TARGET INLINE void NAME(keep)(const elementwise *e, const void *from, void *cache, float *scales, int64_t slot) {
    const int64_t width = e->width;
    if (e->cache_type != E4M3) {
        memcpy((char *)cache + slot * width * bytes_of(e->type), from, (size_t)(width * bytes_of(e->type)));
        return;
    }
    float row[MOST_SIZE];
    uint8_t *to = (uint8_t *)cache + slot * width;
    for (int64_t i = 0; i < width; i++) row[i] = number_at(from, e->type, i);
    scales[slot] = NAME(quantise)(row, width, __builtin_inff());
    for (int64_t i = 0; i < width; i++) to[i] = e4m3_code(row[i]);
}

TARGET static void NAME(rotate)(const elementwise *e, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(e->type), head = e->width * bytes, half = e->width / 2;
    for (int64_t n = begin; n < end; n++) {
        const char *q = (const char *)e->x + n * e->x_stride * bytes;
        const char *k = (const char *)e->y + n * e->y_stride * bytes;
        const char *v = (const char *)e->weight + n * e->weight_stride * bytes;
        const char *cos = (const char *)e->cos + n * half * bytes, *sin = (const char *)e->sin + n * half * bytes;
        const int64_t page = e->places[n] / e->page, offset = e->places[n] % e->page;
        float turned[MOST_SIZE];
        for (int64_t h = 0; h < e->heads; h++) {
            NAME(turn)(e, q + h * head, cos, sin, turned); /* aside first: a head that is turned in place is read twice */
            memcpy((char *)e->out + (n * e->heads + h) * head, turned, (size_t)head);
        }
        for (int64_t g = 0; g < e->groups; g++) {
            const int64_t slot = (page * e->groups + g) * e->page + offset;
            NAME(turn)(e, k + g * head, cos, sin, turned);
            NAME(keep)(e, turned, e->keys, e->key_scale, slot);
            NAME(keep)(e, v + g * head, e->values, e->value_scale, slot);
        }
    }
}

pass_level NAME(pass)(void) {
    return (pass_level){{NAME(load_query), NAME(attend), NAME(fold), NAME(finish_row)},
                        {NAME(norm), NAME(swiglu), NAME(rotate), NAME(summary)}};
}
