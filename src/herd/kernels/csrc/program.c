/* A pass in one call: what the entry points do one by one, in the same order, so the same bits. Between two calls from
   Python a processor forgets enough to lose 60 us, and a layer makes a dozen. Products of the same activations, which
   follow one another, are done together, and SwiGLU with the two that it mixes. */
#include "pass.h"
#include "product.h"

enum operation_kind { PRODUCT, ELEMENTWISE, ATTENTION };

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

void herd_elementwise(int level, int threads, int kind, int64_t rows, const elementwise *e);
int herd_attention(int level, int threads, const attention *a);

/* Whether a product may be done together with `first`: of the same activations, which the first one does not change. */
static int alike(const product *first, const product *p) {
    return p->x == first->x && p->k == first->k && p->format == first->format && p->x_type == first->x_type &&
           p->quantise == first->quantise && p->bound == first->bound && first->out != p->x && p->out != p->x;
}

/* Whether an operation is SwiGLU of the results of two products, in the place of the first. */
static int mixes(const operation *o, const product *gate, const product *up) {
    const elementwise *e = &o->of.elementwise;
    return o->kind == ELEMENTWISE && o->what == SWIGLU && e->x == gate->out && e->out == gate->out &&
           e->y == up->out && gate->n == up->n;
}

/* The product at `o`, those after it that may be done with it, and SwiGLU of two; where it goes on. */
static const operation *run_products(int level, int threads, const operation *o, const operation *end, int64_t rows,
                                     int *failed) {
    product together[MOST_TOGETHER];
    int count = 0;
    for (; o < end && o->kind == PRODUCT && count < MOST_TOGETHER; o++) {
        if (count && !alike(together, &o->of.product)) break;
        together[count++] = o->of.product;
    }
    const int mixed = count == 2 && o < end && mixes(o, together, together + 1);
    *failed = multiply_all(level, threads, rows, together->k, together, count, mixed);
    return o + mixed;
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
    const operation *end = operations + count;
    int failed = 0;
    for (const operation *o = operations; o < end && !failed;) {
        if (o->kind == PRODUCT) {
            o = run_products(level, threads, o, end, s->rows, &failed);
            continue;
        }
        if (o->kind == ELEMENTWISE) failed = run_elementwise(level, threads, o->what, o->of.elementwise, s);
        else failed = run_attention(level, threads, o->of.attention, s);
        o++;
    }
    return failed;
}
