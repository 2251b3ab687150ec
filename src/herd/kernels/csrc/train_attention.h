/* Attention for training: causal within documents, forward and backward. Query t of a row looks at keys starts[t] .. t.

   A task is a group of one row: a head of keys and the heads of queries that look at it, so that nothing is summed across
   tasks. Queries and keys are walked in squares of SPAN. */
#ifndef HERD_TRAIN_ATTENTION_H
#define HERD_TRAIN_ATTENTION_H

#include "pass.h"

#define SPAN 32

typedef struct {
    const void *q, *k, *v; /* [rows, length, heads, size], k and v [rows, length, groups, size] */
    const int32_t *starts; /* [rows, length] */
    void *out;             /* [rows, length, heads, size] */
    float *lse;            /* [rows, heads, length]: logarithm of the sum of exponentials, to base 2 in bfloat16 */
    const void *grad;      /* backward: of out */
    void *grad_q, *grad_k, *grad_v;
    int64_t rows, length, heads, groups, size; /* size: whole steps of 32 */
    int32_t type;
} train_attention;

/* One direction at one level; `run` is NULL where it has none. */
typedef struct {
    void (*run)(const train_attention *, int64_t task, void *scratch);
    size_t (*scratch)(const train_attention *); /* bytes of a thread */
} attention_work;

attention_work amx_train_forward(void); /* in bfloat16 */
attention_work amx_train_backward(void);

INLINE int64_t padded(int64_t length) { return (length + SPAN - 1) / SPAN * SPAN; }

/* Places and strides count numbers of a tensor. */
typedef struct {
    int64_t row, head, end;   /* heads [head, end) of queries */
    int64_t keys, key_stride; /* the place of its first key, and of its first value */
    int64_t stride;           /* of queries */
} group_task;

INLINE group_task task_of(const train_attention *a, int64_t task) {
    const int64_t row = task / a->groups, group = task % a->groups, shared = a->heads / a->groups;
    const int64_t key_stride = a->groups * a->size, keys = row * a->length * key_stride + group * a->size;
    return (group_task){row, group * shared, (group + 1) * shared, keys, key_stride, a->heads * a->size};
}

/* The place of a query; its output and gradients have the same. */
INLINE int64_t query_at(const train_attention *a, const group_task *t, int64_t head, int64_t token) {
    return (t->row * a->length + token) * t->stride + head * a->size;
}

INLINE float *lse_at(const train_attention *a, const group_task *t, int64_t head, int64_t token) {
    return a->lse + (t->row * a->heads + head) * a->length + token;
}

/* The SPAN queries from `first` on: where each one's document starts, and from which square on they see keys. */
typedef struct {
    int64_t first, count;  /* those behind the end of the row are not there */
    int64_t begin, latest; /* keys from the latest start on are everybody's */
    int32_t starts[SPAN], places[SPAN];
} queries;

INLINE queries queries_at(const train_attention *a, int64_t row, int64_t first) {
    queries found = {.first = first, .begin = first, .count = a->length - first < SPAN ? a->length - first : SPAN};
    for (int64_t i = 0; i < SPAN; i++) {
        const int64_t at = first + i, start = i < found.count ? a->starts[row * a->length + at] : at;
        found.starts[i] = (int32_t)start; /* behind the end: itself alone */
        found.places[i] = (int32_t)at;
        found.begin = start < found.begin ? start : found.begin;
        found.latest = start > found.latest ? start : found.latest;
    }
    found.begin = found.begin / SPAN * SPAN;
    return found;
}

/* Keys from the first square on, in whole squares. */
INLINE int64_t keys_of(const queries *q) { return q->first + SPAN - q->begin; }

/* Whether each query sees each of the SPAN keys from `key` on. */
INLINE int all_seen(const queries *q, int64_t key) { return key + SPAN <= q->first + 1 && q->latest <= key; }

#endif
