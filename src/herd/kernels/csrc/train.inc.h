/* Backward passes of norms and SwiGLU, rotations out of place, and the loss, at each level. Needs vectors.inc.h and
   elementwise.inc.h. */

/* y = weight * n, n = round(x / rms(x)): what scales a row does not change n, so the part along n is taken out. */
TARGET static void NAME(norm_backward)(const training *t, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(t->type), width = t->width;
    float *sums = t->sums + begin / CHUNK * width;
    memset(sums, 0, (size_t)width * sizeof(float));
    for (int64_t n = begin; n < end; n++) {
        const char *x = (const char *)t->x + n * width * bytes, *grad = (const char *)t->grad + n * width * bytes;
        VEC squares = SET1(0.0f), along = SET1(0.0f);
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC v = NAME(part)(x, t->type, i, width);
            squares = FMA(v, v, squares);
        }
        const float rstd = 1.0f / __builtin_sqrtf(TOTAL(squares) / (float)width + t->eps);
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC normed = NAME(rounded)(NAME(part)(x, t->type, i, width) * SET1(rstd), t->type);
            const VEC product = NAME(part)(grad, t->type, i, width) * normed;
            along = FMA(product, NAME(part)(t->weight, t->type, i, width), along);
            if (width - i >= LANES) NAME(store)(sums + i, NAME(load)(sums + i) + product);
            else NAME(write)(sums, FLOAT32, i, NAME(read_some)(sums, FLOAT32, i, width - i) + product, width - i);
        }
        const VEC share = SET1(TOTAL(along) / (float)width);
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC normed = NAME(rounded)(NAME(part)(x, t->type, i, width) * SET1(rstd), t->type);
            const VEC scaled = NAME(part)(grad, t->type, i, width) * NAME(part)(t->weight, t->type, i, width);
            const VEC found = (scaled - normed * share) * SET1(rstd);
            NAME(write)((char *)t->out + n * width * bytes, t->type, i, NAME(rounded)(found, t->type), width - i);
        }
    }
}

/* h = silu(gate) * up; silu' = s (1 + gate (1 - s)) with s = sigmoid(gate). */
TARGET static void NAME(swiglu_backward)(const training *t, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(t->type), width = t->width;
    for (int64_t n = begin; n < end; n++) {
        const int64_t row = n * width * bytes;
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC gate = NAME(part)((const char *)t->x + row, t->type, i, width);
            const VEC up = NAME(part)((const char *)t->y + row, t->type, i, width);
            const VEC grad = NAME(part)((const char *)t->grad + row, t->type, i, width);
            const INTS none = gate < SET1(-87.0f); /* where exp(-gate) would be beyond floats */
            const VEC growth = NAME(exp)(NAME(choose)(none, SET1(0.0f), SET1(0.0f) - gate));
            const VEC s = NAME(choose)(none, SET1(0.0f), SET1(1.0f) / (SET1(1.0f) + growth));
            const VEC silu = gate * s, slope = s + silu * (SET1(1.0f) - s);
            NAME(write)((char *)t->out + row, t->type, i, NAME(rounded)(grad * up * slope, t->type), width - i);
            NAME(write)((char *)t->other + row, t->type, i, NAME(rounded)(grad * silu, t->type), width - i);
        }
    }
}

/* Pairs (i, i + width / 2) of every head turned by their angles, in float. */
TARGET static void NAME(turn_rows)(const training *t, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(t->type), half = t->width / 2, head = t->width * bytes;
    const VEC sign = SET1(t->sign);
    for (int64_t n = begin; n < end; n++) {
        const float *cos = t->cos + n % t->period * half, *sin = t->sin + n % t->period * half;
        for (int64_t h = 0; h < t->heads; h++) {
            const char *from = (const char *)t->x + (n * t->heads + h) * head;
            char *to = (char *)t->out + (n * t->heads + h) * head;
            for (int64_t i = 0; i < half; i += LANES) {
                const VEC a = NAME(part)(from, t->type, i, half), b = NAME(part)(from + half * bytes, t->type, i, half);
                const VEC c = NAME(part)(cos, FLOAT32, i, half), s = sign * NAME(part)(sin, FLOAT32, i, half);
                NAME(write)(to, t->type, i, NAME(rounded)(a * c - b * s, t->type), half - i);
                NAME(write)(to + half * bytes, t->type, i, NAME(rounded)(b * c + a * s, t->type), half - i);
            }
        }
    }
}

/* Logits become scale * (softmax - target). */
TARGET static void NAME(loss_rows)(const training *t, int64_t begin, int64_t end) {
    const int64_t bytes = bytes_of(t->type), width = t->width, whole = width / LANES * LANES;
    for (int64_t n = begin; n < end; n++) {
        char *row = (char *)t->out + n * width * bytes;
        float top = number_at(row, t->type, 0), rest = 0.0f;
        VEC tops = SET1(top), totals = SET1(0.0f);
        for (int64_t i = 0; i < whole; i += LANES) {
            const VEC v = NAME(read)(row, t->type, i);
            tops = NAME(choose)(v > tops, v, tops);
        }
        top = TOP(tops);
        for (int64_t i = whole; i < width; i++) top = number_at(row, t->type, i) > top ? number_at(row, t->type, i) : top;
        for (int64_t i = 0; i < whole; i += LANES) totals = totals + NAME(exp)(NAME(read)(row, t->type, i) - SET1(top));
        if (whole < width) {
            float some[LANES];
            NAME(store)(some, NAME(exp)(NAME(read_some)(row, t->type, whole, width - whole) - SET1(top)));
            for (int64_t i = 0; i < width - whole; i++) rest += some[i];
        }
        const float all = TOTAL(totals) + rest, target = number_at(row, t->type, t->targets[n]);
        const VEC scale = SET1(t->scale[n] / all);
        for (int64_t i = 0; i < width; i += LANES) {
            const VEC found = NAME(exp)(NAME(part)(row, t->type, i, width) - SET1(top)) * scale;
            NAME(write)(row, t->type, i, NAME(rounded)(found, t->type), width - i);
        }
        float sums[LANES] = {target - top};
        NAME(store)(sums, NAME(exp)(NAME(load)(sums)));
        const float left = (sums[0] / all - 1.0f) * t->scale[n];
        if (t->type == FLOAT32) ((float *)row)[t->targets[n]] = left;
        else ((uint16_t *)row)[t->targets[n]] = float_to_bfloat16(left);
        t->sums[3 * n] = top;
        t->sums[3 * n + 1] = all;
        t->sums[3 * n + 2] = target;
    }
}

#include "train_attention.inc.h"
#include "train_update.inc.h"

training_level NAME(training)(void) {
    return (training_level){{NAME(norm_backward), NAME(swiglu_backward), NAME(turn_rows), NAME(loss_rows)},
                            {{NAME(attend_forward), NAME(forward_scratch)}, {NAME(attend_backward), NAME(backward_scratch)}},
                            NAME(update)};
}
