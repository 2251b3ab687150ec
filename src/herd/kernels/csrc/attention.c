/* Attention over pages, dealt out to threads: a block of queries and a head of keys is one task, or, where those are few
   and sequences long, one of their splits. Which of the two changes no bit: splits are folded in order either way. */
#include <stdatomic.h>
#include <stdlib.h>

#include "pass.h"

#define ROOM ((int64_t)64 << 20) /* bytes: parts that are kept until all are there take no more */
#define SMALL ((int64_t)1 << 12) /* queries by keys: less is not worth waking a thread */

pass_level pass_of(int level) {
#if defined(__x86_64__)
    if (level >= AVX512) return avx512_pass();
    if (level == AVX2) return avx2_pass();
#endif
    (void)level;
    return portable_pass();
}

typedef struct {
    const attention *a;
    attention_level level;
    int64_t rows, size_padded, splits; /* splits: tasks of a block and a head */
    size_t scratch_bytes;              /* of one thread */
    char *scratch;
    float *parts; /* [blocks, groups, splits][rows][size_padded + 2], where splits are tasks */
    atomic_llong next;
    atomic_int thread;
} shared;

/* Room of one thread: a state of the whole and one of a split, which share all but their sums. Returns its end. */
static uintptr_t make_states(const shared *s, const void *at, state *whole, state *part) {
    uintptr_t room = (uintptr_t)at;
    const size_t row = (size_t)s->rows * sizeof(float), size = (size_t)s->size_padded;
    state made = {.a = s->a, .size_padded = s->size_padded};
    made.q = carve(&room, row * size);
    made.k = carve(&room, BLOCK * size * sizeof(float));
    made.v = carve(&room, BLOCK * size * sizeof(float));
    made.scores = carve(&room, row * BLOCK);
    made.last = carve(&room, (size_t)s->rows * sizeof(int64_t));
    state *both[] = {whole, part};
    for (int i = 0; i < 2; i++) {
        *both[i] = made;
        both[i]->top = carve(&room, row);
        both[i]->total = carve(&room, row);
        both[i]->mixed = carve(&room, row * size);
    }
    return room;
}

static void begin_block(const shared *s, state *st, int64_t block, int64_t group) {
    const attention *a = s->a;
    const int64_t *b = a->blocks + 4 * block, per_token = a->heads / a->groups, bytes = bytes_of(a->q_type);
    st->group = group;
    st->first_token = b[0];
    st->rows = b[1] * per_token;
    for (int64_t row = 0; row < st->rows; row++) {
        const int64_t token = b[0] + row / per_token, head = group * per_token + row % per_token;
        st->last[row] = a->positions[token];
        s->level.load(st, row, (const char *)a->q + (token * a->q_stride + head * a->size) * bytes);
    }
}

/* Where the positions of a span lie. */
static void locate(const attention *a, span *p, const int32_t *table, int64_t group) {
    for (int64_t at = p->from; at < p->to;) {
        const int64_t page = at / a->page, end = (page + 1) * a->page < p->to ? (page + 1) * a->page : p->to;
        int64_t slot = (table[page] * a->groups + group) * a->page + at - page * a->page;
        for (; at < end; at++) p->slots[at - p->from] = slot++;
    }
}

/* Ask for what comes next: pages lie anywhere, and nothing but this tells the processor where. */
static void prefetch(const attention *a, const int32_t *table, int64_t group, int64_t from, int64_t to) {
    const int64_t row = a->size * bytes_of(a->cache_type);
    for (int64_t page = from / a->page; page * a->page < to; page++) {
        const int64_t first = (table[page] * a->groups + group) * a->page * row;
        for (int64_t i = 0; i < a->page * row; i += 64) {
            __builtin_prefetch((const char *)a->keys + first + i, 0, 2);
            __builtin_prefetch((const char *)a->values + first + i, 0, 2);
        }
    }
}

/* One split of a block: its sums alone. */
static void walk(const shared *s, state *st, int64_t block, int64_t split) {
    const attention *a = s->a;
    const int64_t *b = a->blocks + 4 * block, per_token = a->heads / a->groups;
    const int64_t start = split * SPLIT, stop = start + SPLIT;
    for (int64_t row = 0; row < st->rows; row++) {
        st->top[row] = UNSEEN;
        st->total[row] = 0;
    }
    memset(st->mixed, 0, (size_t)(st->rows * s->size_padded) * sizeof(float));
    for (int64_t i = 0; i < b[3]; i++) {
        const int64_t *g = a->segments + 5 * (b[2] + i), end = g[4] < stop ? g[4] : stop;
        span p = {.first = (g[0] - b[0]) * per_token, .end = (g[0] - b[0] + g[1]) * per_token};
        for (p.from = g[3] > start ? g[3] : start; p.from < end; p.from = p.to) {
            p.to = p.from / BLOCK * BLOCK + BLOCK;
            if (p.to > end) p.to = end;
            locate(a, &p, a->tables + g[2], st->group);
            prefetch(a, a->tables + g[2], st->group, p.to, p.to + BLOCK < end ? p.to + BLOCK : end);
            s->level.attend(st, &p);
        }
    }
}

/* Up to where the longest of a block's sequences is read. */
static int64_t end_of(const attention *a, int64_t block) {
    const int64_t *b = a->blocks + 4 * block;
    int64_t end = 1;
    for (int64_t i = 0; i < b[3]; i++)
        if (a->segments[5 * (b[2] + i) + 4] > end) end = a->segments[5 * (b[2] + i) + 4];
    return end;
}

static int64_t splits_of(const attention *a, int64_t block) { return (end_of(a, block) + SPLIT - 1) / SPLIT; }

static void finish_block(const shared *s, const state *st, int64_t block) {
    const attention *a = s->a;
    const int64_t per_token = a->heads / a->groups, bytes = bytes_of(a->q_type);
    for (int64_t row = 0; row < st->rows; row++) {
        const int64_t token = a->blocks[4 * block] + row / per_token, head = st->group * per_token + row % per_token;
        s->level.finish(st, row, (char *)a->out + (token * a->heads + head) * a->size * bytes);
    }
}

static void fold(const shared *s, state *whole, const state *part, int64_t split) {
    if (split == 0) {
        memcpy(whole->top, part->top, (size_t)part->rows * sizeof(float));
        memcpy(whole->total, part->total, (size_t)part->rows * sizeof(float));
        memcpy(whole->mixed, part->mixed, (size_t)(part->rows * s->size_padded) * sizeof(float));
        return;
    }
    for (int64_t row = 0; row < part->rows; row++) s->level.fold(whole, part, row);
}

static void block_tasks(void *data) {
    shared *s = data;
    const attention *a = s->a;
    state whole, part;
    make_states(s, s->scratch + (size_t)atomic_fetch_add(&s->thread, 1) * s->scratch_bytes, &whole, &part);
    for (int64_t task; (task = atomic_fetch_add(&s->next, 1)) < a->n_blocks * a->groups;) {
        const int64_t block = task / a->groups, splits = splits_of(a, block);
        begin_block(s, &part, block, task % a->groups);
        walk(s, &part, block, 0);
        if (splits == 1) {
            finish_block(s, &part, block);
            continue;
        }
        whole.group = part.group;
        whole.first_token = part.first_token;
        whole.rows = part.rows;
        for (int64_t split = 0; split < splits; split++) {
            if (split) walk(s, &part, block, split);
            fold(s, &whole, &part, split);
        }
        finish_block(s, &whole, block);
    }
}

static void at_part(const shared *s, state *st, int64_t task, int64_t split) {
    float *room = s->parts + (task * s->splits + split) * s->rows * (s->size_padded + 2);
    st->top = room;
    st->total = room + s->rows;
    st->mixed = room + 2 * s->rows;
}

static void split_tasks(void *data) {
    shared *s = data;
    const attention *a = s->a;
    state whole, part;
    make_states(s, s->scratch + (size_t)atomic_fetch_add(&s->thread, 1) * s->scratch_bytes, &whole, &part);
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < a->n_blocks * a->groups * s->splits;) {
        const int64_t task = i / s->splits, split = i % s->splits, block = task / a->groups;
        if (split >= splits_of(a, block)) continue;
        begin_block(s, &part, block, task % a->groups);
        at_part(s, &part, task, split);
        walk(s, &part, block, split);
    }
}

static void fold_parts(const shared *s) {
    const attention *a = s->a;
    state whole = {.a = a, .size_padded = s->size_padded}, part = whole;
    for (int64_t task = 0; task < a->n_blocks * a->groups; task++) {
        const int64_t block = task / a->groups;
        whole.group = task % a->groups;
        whole.first_token = a->blocks[4 * block];
        whole.rows = part.rows = a->blocks[4 * block + 1] * (a->heads / a->groups);
        at_part(s, &whole, task, 0);
        for (int64_t split = 1; split < splits_of(a, block); split++) {
            at_part(s, &part, task, split);
            fold(s, &whole, &part, split);
        }
        finish_block(s, &whole, block);
    }
}

/* What is to do, in queries by keys; sizes of rooms, and whether splits are tasks. */
static int64_t measure(shared *s, int threads) {
    const attention *a = s->a;
    const int64_t per_token = a->heads / a->groups, tasks = a->n_blocks * a->groups;
    int64_t work = 0;
    for (int64_t b = 0; b < a->n_blocks; b++) {
        const int64_t rows = a->blocks[4 * b + 1] * per_token, splits = splits_of(a, b);
        if (rows > s->rows) s->rows = rows;
        if (splits > s->splits) s->splits = splits;
        work += rows * end_of(a, b) * a->groups;
    }
    s->rows = (s->rows + 15) / 16 * 16;
    s->size_padded = (a->size + 15) / 16 * 16;
    const int64_t bytes = tasks * s->splits * s->rows * (s->size_padded + 2) * (int64_t)sizeof(float);
    if (threads == 1 || tasks >= 4 * threads || bytes > ROOM) s->splits = 1;
    return work;
}

/* Returns 0, or 1 where memory is short. The caller has checked every size. */
EXPORT int herd_attention(int level, int threads, const attention *a) {
    shared s = {.a = a, .level = pass_of(level).attention};
    if (level == AMX) amx_attention(a, &s.level);
    if (threads < 1) threads = 1;
    if (measure(&s, threads) < SMALL) threads = 1;
    state whole, part;
    s.scratch_bytes = (size_t)make_states(&s, 0, &whole, &part);
    s.scratch = aligned_alloc(64, s.scratch_bytes * (size_t)threads);
    if (s.splits > 1)
        s.parts = malloc((size_t)(a->n_blocks * a->groups * s.splits * s.rows * (s.size_padded + 2)) * sizeof(float));
    const int failed = !s.scratch || (s.splits > 1 && !s.parts);
    if (!failed) in_parallel(s.splits > 1 ? split_tasks : block_tasks, &s, threads);
    if (!failed && s.splits > 1) fold_parts(&s);
    free(s.scratch);
    free(s.parts);
    return failed;
}
