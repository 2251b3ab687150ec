/* Activations made ready, one row a call; included by each level, which compiles it for its own instructions.
   Needs TARGET and NAME(name). */

/* The nearest e4m3 value, ties to even; |v| is at most 448 or v is NaN. */
TARGET INLINE float NAME(to_e4m3)(float v) {
    uint32_t bits = float_to_bits(v);
    float normal = bits_to_float((bits + 0x7ffffu + ((bits >> 20) & 1u)) & 0xfff00000u);
    float tiny = (v + 24576.0f) - 24576.0f; /* 1.5 * 2^14, where float's spacing is 2^-9, that of e4m3's subnormals */
    float rounded = (bits & 0x7fffffffu) < 0x3c800000u ? tiny : normal; /* under 2^-6 */
    return v != v ? v : rounded;
}

/* e4m3 values in place, and the scale: `quantize_rows` of e4m3.py. */
TARGET INLINE float NAME(quantise)(float *row, int64_t k, float bound) {
    uint32_t top = 0; /* magnitudes are ordered like their bits, NaN above infinity */
    for (int64_t i = 0; i < k; i++) {
        uint32_t magnitude = float_to_bits(row[i]) & 0x7fffffffu;
        top = magnitude > top ? magnitude : top;
    }
    float largest = bits_to_float(top);
    if (largest < 1e-12f) largest = 1e-12f;
    if (largest > bound) largest = bound;
    float scale = largest / E4M3_MAX;
    for (int64_t i = 0; i < k; i++) {
        float v = row[i] / scale;
        v = v < -E4M3_MAX ? -E4M3_MAX : v;
        v = v > E4M3_MAX ? E4M3_MAX : v;
        row[i] = NAME(to_e4m3)(v);
    }
    return scale;
}

/* One row of x as floats in `row`, quantised if the job says so, zeros behind it. */
TARGET INLINE void NAME(prepare_row)(const job *j, int64_t m, float *row) {
    if (j->x_type == X_BFLOAT16) {
        const uint16_t *x = (const uint16_t *)j->x + m * j->x_stride;
        for (int64_t i = 0; i < j->k; i++) row[i] = bits_to_float((uint32_t)x[i] << 16);
    } else {
        memcpy(row, (const float *)j->x + m * j->x_stride, (size_t)j->k * sizeof(float));
    }
    memset(row + j->k, 0, (size_t)(j->k_padded - j->k) * sizeof(float));
    if (j->quantise) j->x_scale[m] = NAME(quantise)(row, j->k, j->bound);
}
