/* AdamW and sums of squares at each level. Needs vectors.inc.h, elementwise.inc.h and SQRT. */

TARGET static double NAME(squares)(const updated *t, int64_t begin, int64_t end) {
    double all = 0.0;
    for (int64_t next; begin < end; begin = next) { /* short sums: rounding of long ones adds up */
        VEC sum = SET1(0.0f);
        next = begin + 64 * LANES < end ? begin + 64 * LANES : end;
        for (int64_t i = begin; i < next; i += LANES) {
            const VEC g = NAME(part)(t->grad, t->type, i, next);
            sum = FMA(g, g, sum);
        }
        all += (double)TOTAL(sum);
    }
    return all;
}

/* Numbers [begin, end) of a tensor; returns the sum of squares where that is asked for. */
TARGET static double NAME(update)(const update *u, const updated *t, int64_t begin, int64_t end) {
    if (u->squares) return NAME(squares)(t, begin, end);
    const VEC new1 = SET1(1.0f - u->beta1), new2 = SET1(1.0f - u->beta2);
    for (int64_t i = begin; i < end; i += LANES) {
        const VEC g = NAME(part)(t->grad, t->type, i, end) * SET1(u->scale);
        VEC first = NAME(part)(t->first, FLOAT32, i, end), second = NAME(part)(t->second, FLOAT32, i, end);
        first = FMA(g - first, new1, first);
        second = FMA(g * g, new2, second * SET1(u->beta2));
        const VEC spread = FMA(SQRT(second), SET1(t->root), SET1(u->eps));
        const VEC weight = NAME(part)(t->weight, FLOAT32, i, end) * SET1(t->kept) - SET1(t->step) * first / spread;
        NAME(write)(t->first, FLOAT32, i, first, end - i);
        NAME(write)(t->second, FLOAT32, i, second, end - i);
        NAME(write)(t->weight, FLOAT32, i, weight, end - i);
        if (t->copy) NAME(write)(t->copy, BFLOAT16, i, NAME(to_bf16)(weight), end - i);
    }
    return 0.0;
}
