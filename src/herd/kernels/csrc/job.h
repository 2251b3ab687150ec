/* One product out = x W^T: what every level of instructions is given. Rows of W are dealt out to threads.

   A result depends on its own row of x and its own row of W only. The sum over K runs in an order that K alone fixes:
   not the number of threads, not M. Activations are copied first ("prepared"): widened or narrowed to what the level
   multiplies, quantised where asked for, padded with zeros to whole groups. */
#ifndef HERD_JOB_H
#define HERD_JOB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum format { FP8, BF16, INT8, Q8_0, F32, FORMATS };
enum level { PORTABLE, AVX2, AVX512, AVX512_BF16, AMX, LEVELS };
enum xtype { X_FLOAT32, X_BFLOAT16 };

#define GROUP 64        /* K is padded to a multiple of it */
#define SCRATCH 32768   /* bytes of a thread's scratch beside those that a kernel states */
#define E4M3_MAX 448.0f /* the largest finite e4m3 value */
#define INLINE static inline __attribute__((always_inline))
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

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
    void *prepared; /* [M, k_padded]: activations as the level multiplies them */
    float *x_scale; /* [M], written where activations are quantised */
    void *out;      /* M rows of the type of x, out_stride elements from one to the next */
    int64_t out_stride;
} job;

typedef void (*prepare_fn)(const job *, int64_t m, void *scratch);
typedef void (*rows_fn)(const job *, int64_t begin, int64_t end, void *scratch);

/* How a level multiplies a format. `scratch` is a thread's own. */
typedef struct {
    prepare_fn prepare; /* `columns` rows of activations from m on, or those that are left */
    rows_fn rows;       /* some rows of W against all rows of x; NULL: the level has no code for the format */
    size_t x_bytes;     /* of one prepared activation */
    int64_t columns;    /* rows of x that are prepared together */
    int64_t most;       /* rows of x that are multiplied at a time, so that they stay in a cache; whole columns */
    int64_t piece;      /* rows of W that a thread takes at once: a multiple of it */
    size_t scratch;     /* bytes of scratch for each padded column of W */
    size_t scratch_row; /* and for each row of x */
} kernel;

/* Bytes up to whole lines of a cache. */
INLINE size_t lined(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* The next `bytes` of a room. From 0 on, where the room ends is how large it has to be. */
INLINE void *carve(uintptr_t *room, size_t bytes) {
    const uintptr_t taken = *room;
    *room += lined(bytes);
    return (void *)taken;
}

INLINE int64_t x_size(enum xtype type) { return type == X_BFLOAT16 ? 2 : 4; }

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

/* Rounded to nearest, ties to even, as torch does; NaN stays NaN. */
INLINE uint16_t float_to_bfloat16(float value) {
    uint32_t bits = float_to_bits(value);
    return value != value ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE void write_out(const job *j, int64_t m, int64_t n, float value) {
    const int64_t at = m * j->out_stride + n;
    if (j->x_type == X_BFLOAT16) ((uint16_t *)j->out)[at] = float_to_bfloat16(value);
    else ((float *)j->out)[at] = value;
}

/* Scales after the sum, in the order of the reference. */
INLINE void finish(const job *j, int64_t m, int64_t n, float sum) {
    if (j->quantise) sum *= j->x_scale[m];
    if (j->weight_scale) sum *= j->weight_scale[n];
    write_out(j, m, n, sum);
}

kernel portable_kernel(enum format);
kernel avx2_kernel(enum format);
kernel avx512_kernel(enum format);
kernel avx512_bf16_kernel(enum format);
kernel amx_kernel(enum format);
void in_parallel(void (*work)(void *), void *data, int threads); /* by each of the caller's threads, at once */
char *take_room(size_t bytes); /* whole lines, the first of which is not the caller's; NULL where memory is short */
void give_room(void *room);    /* it is kept for the next */
int amx_allowed(void); /* asks the processor and the kernel of the system */

#endif
