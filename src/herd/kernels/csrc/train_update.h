/* AdamW over float weights, and the sum of squares of gradients: one walk over memory each, over many tensors.

   Sums are taken a PORTION of a tensor at a time, each into a place of its own: results do not depend on the number of
   threads. */
#ifndef HERD_TRAIN_UPDATE_H
#define HERD_TRAIN_UPDATE_H

#include "pass.h"

#define PORTION ((int64_t)1 << 14) /* numbers that a thread takes at once */

typedef struct {
    const void *grad;
    float *weight, *first, *second; /* with both moments of its gradient */
    uint16_t *copy;                 /* weights as bfloat16, or NULL */
    int64_t count;
    float kept; /* of a weight where its gradient is 0 */
    float step; /* the rate over the bias of the first moment */
    float root; /* over the square root of the bias of the second */
    int32_t type; /* of grad */
} updated;

typedef struct {
    const updated *tensors;
    int64_t count;
    double *squares; /* a number a portion: only the squares are summed; NULL: an update */
    float scale;     /* of gradients */
    float beta1, beta2, eps;
} update;

typedef double (*update_fn)(const update *, const updated *, int64_t begin, int64_t end);

#endif
