/* What training does between its products, forward and backward; numbers are float or bfloat16, sums float.

   Results depend on neither the number of threads nor the order in which they come: sums over rows are taken a chunk of
   CHUNK rows at a time, each into a place of its own. */
#ifndef HERD_TRAIN_H
#define HERD_TRAIN_H

#include "pass.h"

#define CHUNK 64 /* rows that a thread takes at once */

/* Rows [begin, end), `width` numbers each. */
typedef struct {
    const void *x, *y;     /* norm: x. SwiGLU: gate and up. Rotation: tokens of `heads` heads */
    const void *grad;      /* of what was made of them */
    const void *weight;    /* norm */
    const float *cos, *sin; /* rotation: [.., width / 2], that of row n at n % period */
    void *out, *other;     /* gradients of x and of y; rotation: the turned heads; loss: logits become their gradient */
    float *sums;           /* norm: gradient of the weight, [chunks, width]; loss: largest, sum of exp, target's, [rows, 3] */
    const int64_t *targets;
    const float *scale;    /* loss: of each row */
    int64_t width, heads, period;
    float eps, sign;       /* sign -1 turns back */
    int32_t type;
} training;

enum training_kind { NORM_BACKWARD, SWIGLU_BACKWARD, TURN, LOSS, TRAINING_KINDS };

typedef void (*training_fn)(const training *, int64_t begin, int64_t end);

/* Causal attention within documents: query t of a row looks at keys start[t] .. t. Tasks are rows by groups. */
typedef struct {
    const void *q, *k, *v; /* [rows, length, heads, size], k and v [rows, length, groups, size] */
    const int32_t *starts; /* [rows, length] */
    void *out;         /* [rows, length, heads, size] */
    float *lse;        /* [rows, heads, length]: logarithm of the sum of exponentials, to base 2 in bfloat16 */
    const void *grad;  /* backward: of out */
    void *grad_q, *grad_k, *grad_v;
    int64_t rows, length, heads, groups, size;
    int32_t type;
} train_attention;

typedef void (*train_attention_fn)(const train_attention *, int64_t task, char *scratch);

typedef struct {
    training_fn work[TRAINING_KINDS];
    train_attention_fn attention[2]; /* forward, backward; in float */
} training_level;

training_level portable_training(void);
training_level avx2_training(void);
training_level avx512_training(void);

size_t amx_train_scratch(const train_attention *, int backward); /* bytes of a thread */
void amx_train_forward(const train_attention *, int64_t task, char *scratch);
void amx_train_backward(const train_attention *, int64_t task, char *scratch);
int amx_train_able(void);

#endif
