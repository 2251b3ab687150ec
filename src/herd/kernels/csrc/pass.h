/* What a pass over a network does between its products: attention over pages, norms, rotary positions, SwiGLU.

   A result depends on its own row (attention: on its own sequence up to its position), and its sums run in an order
   that the row's own length alone fixes: not the batch, not how a prompt was cut, not the number of threads. */
#ifndef HERD_PASS_H
#define HERD_PASS_H

#include "job.h"

#define BLOCK 64         /* positions that are looked at together, borders at multiples of it */
#define SPLIT 1024       /* positions after which a partial result is folded into the whole; a multiple of BLOCK */
#define MOST_ROWS_OF_Q 64 /* queries by heads of a group that a block holds, unless one token has more */
#define MOST_SIZE 256     /* of a head */
#define UNSEEN (-1e30f)  /* the maximum of scores before there was any: less than all, and no NaN when subtracted */

enum number { FLOAT32, BFLOAT16, E4M3 };

/* Queries of a pass over the pages of their sequences. Blocks are runs of tokens whose segments are walked in order;
   a segment is positions that some of the block's tokens look at through one table. */
typedef struct {
    const void *q;     /* tokens, q_stride numbers from one to the next, each [heads, size] */
    const void *keys;  /* [pages, groups, page, size] */
    const void *values;
    const float *key_scale; /* [pages, groups, page], e4m3 only */
    const float *value_scale;
    void *out; /* [tokens, heads, size] in q's type */
    const int64_t *positions; /* [tokens] */
    const int32_t *tables;
    const int64_t *blocks;   /* [n_blocks][4]: first token, tokens, first segment, segments */
    const int64_t *segments; /* [][5]: first token, tokens, where its table begins, first position, end */
    int64_t q_stride, n_blocks, heads, groups, size, page;
    int32_t q_type, cache_type; /* enum number */
} attention;

/* What one thread knows of the block and the head of keys that it works on. Rows are tokens by heads of the group. */
typedef struct {
    const attention *a;
    int64_t group, first_token, rows, size_padded;
    void *q;         /* [rows, size_padded], as the level multiplies it */
    float *top;      /* [rows] the largest score so far, */
    float *total;    /* the sum of exp(score - top), */
    float *mixed;    /* [rows, size_padded] and that of the values by it */
    void *k, *v;     /* a block of keys and of values as the level multiplies them */
    float *scores;   /* [rows, BLOCK] */
    int64_t *last;   /* [rows] the last position that the query may look at: its own */
} state;

/* Positions [from, to) of at most BLOCK, from a multiple of it, for rows [first, end). */
typedef struct {
    int64_t first, end, from, to;
    int64_t slots[BLOCK]; /* where each position lies, in keys and values of a head */
} span;

typedef struct {
    void (*load)(state *, int64_t row, const void *q); /* one query */
    void (*attend)(state *, const span *);
    void (*fold)(state *into, const state *part, int64_t row); /* of a later split */
    void (*finish)(const state *, int64_t row, void *out);
} attention_level;

/* Elementwise work on rows [begin, end). */
typedef struct {
    const void *x, *y;  /* norm: x and what is added to it, or NULL; SwiGLU: gate and up; rotation: queries and keys */
    const void *weight; /* norm; rotation: values */
    const void *cos, *sin;
    void *out, *sum; /* sum: x + y, or NULL; SwiGLU: out has the strides of x; rotation: out takes the queries */
    void *keys, *values;
    float *key_scale, *value_scale;
    const int64_t *places; /* rotation: page * page size + offset of each token */
    int64_t width, x_stride, y_stride, weight_stride, heads, groups, page;
    float eps;
    int32_t type, cache_type;
} elementwise;

enum elementwise_kind { NORM, SWIGLU, ROTATE, SUMMARY, KINDS };

typedef void (*elementwise_fn)(const elementwise *, int64_t begin, int64_t end);

typedef struct {
    attention_level attention;
    elementwise_fn elementwise[KINDS];
} pass_level;

pass_level portable_pass(void);
pass_level avx2_pass(void);
pass_level avx512_pass(void);
pass_level pass_of(int level);
int amx_attention(const attention *, attention_level *); /* whether it can, and if so how */

INLINE float scale_of(const float *scale, const span *p, int64_t i) { return scale ? scale[p->slots[i]] : 1.0f; }

/* The code of a value that e4m3 has. */
INLINE uint8_t e4m3_code(float v) {
    const uint32_t bits = float_to_bits(v), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffffu;
    if (v != v) return 0x7f;
    if (magnitude < 0x3c800000u) return (uint8_t)(sign | (uint32_t)(bits_to_float(magnitude) * 512.0f)); /* under 2^-6 */
    return (uint8_t)(sign | ((magnitude >> 20) - (120u << 3)));
}

INLINE float e4m3_value(uint8_t code) {
    const uint32_t magnitude = code & 0x7f, sign = (uint32_t)(code & 0x80) << 24;
    if (magnitude == 0x7f) return __builtin_nanf("");
    const float small = (float)magnitude * 0x1p-9f;
    return bits_to_float((magnitude < 8 ? float_to_bits(small) : (magnitude << 20) + (120u << 23)) | sign);
}

INLINE int64_t bytes_of(int type) { return type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1; }

INLINE float number_at(const void *from, int type, int64_t i) {
    return type == FLOAT32 ? ((const float *)from)[i] : bits_to_float((uint32_t)((const uint16_t *)from)[i] << 16);
}

#endif
