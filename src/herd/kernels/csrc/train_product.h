/* Products of training on matrix tiles: c [m, n] = or += the sum over parts of a [m, k] b [k, n], summed in float.

   A float is three bfloat16 whose sum it is, to all of its 24 bits: of the nine products of two of them the six largest
   are taken, and what is left out is of the size of one rounding of a float. An infinite number gives NaN. */
#ifndef HERD_TRAIN_PRODUCT_H
#define HERD_TRAIN_PRODUCT_H

#include "pass.h"

/* a[i][l] is at i * a_row + l * a_step, b[l][j] at l * b_row + j * b_step; one stride of each is 1. */
typedef struct {
    const void *a, *b;
    int64_t k, a_row, a_step, b_row, b_step;
} train_part;

typedef struct {
    const train_part *parts;
    void *c;
    int64_t count, m, n, c_row; /* numbers from one row of c to the next */
    int32_t type, c_type;       /* of a and b; of c: the same or float */
    int32_t add;                /* only to float */
} train_product;

int amx_train_product(int threads, const train_product *); /* 0, or 1 where memory is short */
int amx_multiplies(void);                                  /* whether it is compiled in */

#endif
