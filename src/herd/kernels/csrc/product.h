/* Products of the same activations, which one dispatch of threads does together. */
#ifndef HERD_PRODUCT_H
#define HERD_PRODUCT_H

#include "job.h"

#define MOST_TOGETHER 3

/* out [m, n] = x [m, k] W^T, as `herd_linear` takes it; rows of out lie without gaps. */
typedef struct {
    const void *x, *weight;
    const float *scale;
    void *out;
    int64_t n, k, row_bytes;
    int32_t format, x_type, quantise;
    float bound;
} product;

/* Up to MOST_TOGETHER products that differ in W, its scale and out only. `mixed`: there are two, of one n, and the first
   one's out becomes silu(out) * the other's. Activations are prepared once; results are those of one product after the
   other to the bit. Returns 1 where memory is short. */
int multiply_all(int level, int threads, int64_t m, int64_t x_stride, const product *, int count, int mixed);

#endif
