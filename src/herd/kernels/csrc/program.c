/* A pass over few rows in one call: the same entry points in the same order as one call each, so the same bits. Between
   two calls from Python a processor forgets enough to lose 60 us, and a layer makes a dozen. */
#include "pass.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum operation_kind { PRODUCT, ELEMENTWISE, ATTENTION };

/* out [rows, n] = x [rows, k] W^T, all of it as `herd_linear` takes it; rows of x lie without gaps. */
typedef struct {
    const void *x, *weight;
    const float *scale;
    void *out;
    int64_t n, k, row_bytes;
    int32_t format, x_type, quantise;
    float bound;
} product;

typedef struct {
    int32_t kind, what; /* what: enum elementwise_kind */
    union {
        product product;
        elementwise elementwise; /* rotation: cos, sin and places are the step's */
        attention attention;     /* positions, tables, blocks and segments are the step's */
    } of;
} operation;

/* What differs from step to step. */
typedef struct {
    int64_t rows, n_blocks;
    const void *cos, *sin;
    const int64_t *places, *positions, *blocks, *segments;
    const int32_t *tables;
} step;

int herd_linear(int level, int format, int threads, int64_t m, int64_t n, int64_t k, const void *x, int x_type,
                int64_t x_stride, const void *weight, int64_t row_bytes, const float *scale, int quantise, float bound,
                void *out);
void herd_elementwise(int level, int threads, int kind, int64_t rows, const elementwise *e);
int herd_attention(int level, int threads, const attention *a);

static int run_product(int level, int threads, const product *p, int64_t rows) {
    return herd_linear(level, p->format, threads, rows, p->n, p->k, p->x, p->x_type, p->k, p->weight, p->row_bytes,
                       p->scale, p->quantise, p->bound, p->out);
}

static int run_elementwise(int level, int threads, int kind, elementwise e, const step *s) {
    if (kind == ROTATE) {
        e.cos = s->cos;
        e.sin = s->sin;
        e.places = s->places;
    }
    herd_elementwise(level, threads, kind, s->rows, &e);
    return 0;
}

static int run_attention(int level, int threads, attention a, const step *s) {
    a.positions = s->positions;
    a.tables = s->tables;
    a.blocks = s->blocks;
    a.segments = s->segments;
    a.n_blocks = s->n_blocks;
    return herd_attention(level, threads, &a);
}

/* Returns 0, or 1 where memory is short: then later operations were not done. The caller has checked every size. */
EXPORT int herd_run_program(int level, int threads, int64_t count, const operation *operations, const step *s) {
    int failed = 0;
    for (const operation *o = operations; o < operations + count && !failed; o++) {
        if (o->kind == PRODUCT) failed = run_product(level, threads, &o->of.product, s->rows);
        else if (o->kind == ELEMENTWISE) failed = run_elementwise(level, threads, o->what, o->of.elementwise, s);
        else failed = run_attention(level, threads, o->of.attention, s);
    }
    return failed;
}
