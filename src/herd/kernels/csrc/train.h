/* What training does between its products, forward and backward; numbers are float or bfloat16, sums float.

   Results depend on neither the number of threads nor the order in which they come: sums over rows are taken a chunk of
   CHUNK rows at a time, each into a place of its own. */
#ifndef HERD_TRAIN_H
#define HERD_TRAIN_H

#include "train_attention.h"
#include "train_update.h"

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

typedef struct {
    training_fn work[TRAINING_KINDS];
    attention_work attention[2]; /* forward, backward; in float */
    update_fn update;
} training_level;

training_level portable_training(void);
training_level avx2_training(void);
training_level avx512_training(void);
training_level training_of(int level);

#endif
