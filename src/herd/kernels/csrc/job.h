/* One product out = x W^T: what every level of instructions is given. Rows of W are dealt out to threads.

   A result depends on its own row of x and its own row of W only. The sum over K runs in an order that K alone fixes:
   not the number of threads, not M. Activations are copied first ("prepared"): widened or narrowed to what the level
   multiplies, quantised where asked for, padded with zeros to whole groups. */
#ifndef HERD_JOB_H
#define HERD_JOB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum format { FP8, BF16, INT8, Q8_0, FORMATS };
enum level { PORTABLE, AVX2, AVX512, AVX512_BF16, AMX, LEVELS };
enum xtype { X_FLOAT32, X_BFLOAT16 };

#define GROUP 64        /* K is padded to a multiple of it */
#define E4M3_MAX 448.0f /* the largest finite e4m3 value */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *weight; /* N rows, row_bytes from one to the next */
    int64_t row_bytes;
    const float *weight_scale; /* [N] or NULL */
    const void *x;             /* M rows, x_stride elements from one to the next */
    int64_t x_stride;
    enum xtype x_type;
    int quantise; /* activations to e4m3, one scale a row, magnitudes bounded */
    float bound;
    int64_t m, n, k, k_padded;
    float *wide;    /* [M, k_padded]: room for activations as floats */
    void *prepared; /* [M, k_padded]: the same room, or one of bfloat16 */
    float *x_scale; /* [M], written where activations are quantised */
    float *out;     /* M rows, out_stride elements from one to the next */
    int64_t out_stride;
} job;

typedef void (*prepare_fn)(const job *, int64_t m);
typedef void (*rows_fn)(const job *, int64_t begin, int64_t end, void *scratch);

typedef struct {
    prepare_fn prepare; /* one row of activations */
    rows_fn rows;       /* some rows of W against all rows of x; NULL: the level has no code for the format */
    size_t x_bytes;     /* of one prepared activation */
    size_t tile;        /* rows of W that are widened together into scratch, of x_bytes a value */
    int64_t columns;    /* rows of x that are multiplied together: room is made for whole numbers of them */
} kernel;

INLINE float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* Scales after the sum, in the order of the reference. */
INLINE void finish(const job *j, int64_t m, int64_t n, float sum) {
    if (j->quantise) sum *= j->x_scale[m];
    if (j->weight_scale) sum *= j->weight_scale[n];
    j->out[m * j->out_stride + n] = sum;
}

kernel portable_kernel(enum format);
kernel avx2_kernel(enum format);
kernel avx512_kernel(enum format);
kernel avx512_bf16_kernel(enum format);
kernel amx_kernel(enum format);
void in_parallel(void (*work)(void *), void *data, int threads); /* by each of the caller's threads, at once */
int amx_allowed(void); /* asks the processor and the kernel of the system */

#endif
