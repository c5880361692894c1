/* One pass of a batch through all layers, shared among threads. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "processor.h"
#include "threads.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { PHASES = 16 };

typedef struct pd_context {
    pd_shape shape;
    const pd_functions *functions;
    pd_team *team;
    int32_t num_threads;
    pd_rows *in;             /* what the next linear layer reads; see `input` */
    float *qkv, *mixed, *inner, *normed, *query_scales;
    int8_t *queries;
    pd_scratch *scratch;     /* one for each thread */
    atomic_int next[PHASES]; /* the next piece of each phase's work */
    atomic_int bad;          /* a row was not finite */
    /* The pass at hand. */
    const pd_layer *layers;
    const float *cos, *sin;  /* [rows][head_dim / 2] */
    pd_segment *segments;
    int32_t num_segments, rows;
    float *x;
    const pd_linear *head;
    float *logits;
    int32_t stop;            /* layers to run */
} pd_context;

static int padded(int n) { return (n + GROUP - 1) / GROUP * GROUP; }

static const pd_functions *best(void) {
#if defined(__x86_64__) || defined(_M_X64)
    if (pd_has_avx512()) return &pd_avx512;
    if (pd_has_avx2()) return &pd_avx2;
#elif defined(__aarch64__)
    if (pd_has_dotprod()) return &pd_dotprod;
#endif
    return &pd_portable;
}

/* The functions of an instruction set by name, or the best that this processor has; null: it has
   them not. */
static const pd_functions *named(const char *name) {
    const pd_functions *found = best();
    if (!name || !*name || !strcmp(name, found->name)) return found;
    if (!strcmp(name, pd_portable.name)) return &pd_portable;
#if defined(__x86_64__) || defined(_M_X64)
    if (found == &pd_avx512 && !strcmp(name, pd_avx2.name)) return &pd_avx2;
#endif
    return 0;
}

EXPORT const char *pd_isa(const char *wanted) {
    const pd_functions *found = named(wanted);
    return found ? found->name : "";
}

EXPORT void pd_close(pd_context *c) {
    if (!c) return;
    if (c->team) pd_team_end(c->team);
    float *floats[] = {c->qkv, c->mixed, c->inner, c->normed, c->query_scales};
    for (unsigned i = 0; i < sizeof floats / sizeof *floats; i++) free(floats[i]);
    for (int i = 0; c->in && i < c->num_threads; i++) {
        free(c->in[i].codes);
        free(c->in[i].shifts);
        free(c->in[i].sums);
        free(c->in[i].scales);
    }
    free(c->in);
    free(c->queries);
    for (int i = 0; c->scratch && i < c->num_threads; i++) {
        free(c->scratch[i].scores);
        free(c->scratch[i].low);
        free(c->scratch[i].high);
    }
    free(c->scratch);
    free(c);
}

static int reserve_rows(pd_rows *in, size_t rows, size_t wide) {
    in->codes = malloc(rows * 2 * wide);
    in->shifts = malloc(rows * wide / GROUP * sizeof(int32_t));
    in->sums = malloc(rows * wide / GROUP * sizeof(int32_t));
    in->scales = malloc(rows * sizeof(float));
    return in->codes && in->shifts && in->sums && in->scales;
}

/* Return what a model's passes need; null: there is no memory, or not this instruction set. */
EXPORT pd_context *pd_open(const pd_shape *shape, const char *isa, int threads, int max_rows,
                           int widest) {
    pd_context *c = calloc(1, sizeof *c);
    if (!c) return 0;
    c->shape = *shape;
    c->functions = named(isa);
    c->num_threads = threads;
    const size_t rows = (size_t)max_rows, queries = (size_t)shape->heads * shape->head_dim;
    int ready = (c->in = calloc((size_t)threads, sizeof *c->in)) != 0;
    for (int i = 0; ready && i < threads; i++)
        ready = reserve_rows(&c->in[i], i ? 1 : rows, (size_t)padded(widest));
    c->qkv = malloc(rows * padded((int)(shape->heads + 2 * shape->kv_heads) * shape->head_dim) * sizeof(float));
    c->mixed = malloc(rows * queries * sizeof(float));
    c->inner = malloc(rows * padded(shape->inner) * sizeof(float));
    c->normed = malloc((size_t)threads * padded(shape->hidden) * sizeof(float));
    c->queries = malloc(rows * queries);
    c->query_scales = malloc(rows * shape->heads * sizeof(float));
    c->scratch = calloc((size_t)threads, sizeof *c->scratch);
    c->team = threads > 1 ? pd_team_begin(threads) : 0;
    if (!c->functions || !ready || !c->qkv || !c->mixed || !c->inner || !c->normed || !c->queries ||
        !c->query_scales || !c->scratch || (threads > 1 && !c->team)) {
        pd_close(c);
        return 0;
    }
    return c;
}

static int reserve_scratch(pd_context *c, int num_keys) {
    const int room = (num_keys + PANEL - 1) / PANEL * PANEL;
    for (int i = 0; i < c->num_threads; i++) {
        pd_scratch *s = &c->scratch[i];
        if (s->room >= room) continue;
        free(s->scores);
        free(s->low);
        free(s->high);
        const int grown = room > 2 * s->room ? room : 2 * s->room;
        s->scores = malloc((size_t)ROWS * grown * sizeof(float));
        s->low = malloc((size_t)ROWS * grown);
        s->high = malloc((size_t)ROWS * grown);
        s->room = s->scores && s->low && s->high ? grown : 0;
        if (!s->room) return -1;
    }
    return 0;
}

static int take(pd_context *c, int phase) {
    return atomic_fetch_add_explicit(&c->next[phase], 1, memory_order_relaxed);
}

/* Take the pieces 0 .. count of a phase's work, one after another, as the other threads do. */
#define EACH(c, phase, piece, count)                                                             \
    for (int piece = take(c, phase); piece < (count); piece = take(c, phase))

/* Wait until all pieces are done. The counter is used again only after further such meetings. */
static void finish(pd_context *c, int thread, int phase) {
    if (c->team) pd_team_meet(c->team);
    if (thread == 0) atomic_store_explicit(&c->next[phase], 0, memory_order_relaxed);
}

/* Whether each thread makes a linear layer's input for itself: one row is sooner made than waited for. */
static int is_alone(const pd_context *c) { return c->rows == 1; }

static pd_rows *input(pd_context *c, int thread) { return &c->in[is_alone(c) ? thread : 0]; }

#define EACH_INPUT(c, phase, row)                                                                \
    for (int row = is_alone(c) ? 0 : take(c, phase); row < (c)->rows;                            \
         row = is_alone(c) ? 1 : take(c, phase))

static void multiply(pd_context *c, int thread, int phase, const pd_linear *w, int rows, int kind,
                     float *y, int stride) {
    const int pairs = w->rows / (2 * PANEL), together = pairs / (8 * c->num_threads) + 1;
    EACH(c, phase, piece, (pairs + together - 1) / together) {
        const int end = (piece + 1) * together;
        for (int pair = piece * together; pair < end && pair < pairs; pair++)
            c->functions->linear(w, input(c, thread), rows, 2 * pair, kind, y, stride);
    }
    finish(c, thread, phase);
}

static void normalise(pd_context *c, int thread, int phase, const float *weight, int planes) {
    const int hidden = c->shape.hidden;
    float *y = c->normed + (size_t)thread * padded(hidden);
    EACH_INPUT(c, phase, row) {
        int bad = c->functions->norm(c->x + (size_t)row * padded(hidden), weight, hidden, c->shape.eps, y);
        bad |= c->functions->quantise(y, hidden, padded(hidden), planes, input(c, thread), row);
        if (bad) atomic_store(&c->bad, 1);
    }
    if (!is_alone(c)) finish(c, thread, phase);
}

static void quantise(pd_context *c, int thread, int phase, const float *x, int count, int stride,
                     int planes) {
    EACH_INPUT(c, phase, row) {
        const float *from = x + (size_t)row * stride;
        if (c->functions->quantise(from, count, padded(count), planes, input(c, thread), row))
            atomic_store(&c->bad, 1);
    }
    if (!is_alone(c)) finish(c, thread, phase);
}

/* Make a KV head of a row ready for attention. */
static void make_head(pd_context *c, int layer, const pd_segment *segment, int row, int kv_head) {
    const pd_shape *s = &c->shape;
    const size_t half = (size_t)s->head_dim / 2, dims = (size_t)s->heads * s->head_dim;
    if (c->functions->heads(s, &c->layers[layer], kv_head,
                            c->qkv + (size_t)row * c->layers[layer].qkv.rows, c->cos + row * half,
                            c->sin + row * half, &segment->cached[layer], segment->capacity,
                            segment->start + row - segment->first_row, c->queries + row * dims,
                            c->query_scales + (size_t)row * s->heads))
        atomic_store(&c->bad, 1);
}

static void make_heads(pd_context *c, int thread, int phase, int layer) {
    EACH(c, phase, piece, c->rows * c->shape.kv_heads) {
        const int row = piece / c->shape.kv_heads;
        int at = 0;
        while (row >= c->segments[at].first_row + c->segments[at].count) at++;
        make_head(c, layer, &c->segments[at], row, piece % c->shape.kv_heads);
    }
    finish(c, thread, phase);
}

static void attend(pd_context *c, int thread, int heads_phase, int phase, int layer) {
    const pd_shape *s = &c->shape;
    const int group = s->heads / s->kv_heads, are_made = !is_alone(c) || group > ROWS;
    if (are_made) make_heads(c, thread, heads_phase, layer);
    int before = 0;
    int piece = take(c, phase);
    for (int at = 0; at < c->num_segments; at++) {
        const pd_segment *segment = &c->segments[at];
        const int rows = segment->count * group, blocks = (rows + ROWS - 1) / ROWS;
        for (; piece - before < blocks * s->kv_heads; piece = take(c, phase)) {
            const int head = (piece - before) / blocks, first = (piece - before) % blocks * ROWS;
            const int count = rows - first < ROWS ? rows - first : ROWS;
            if (!are_made) make_head(c, layer, segment, 0, head);
            c->functions->attend(s, c->layers, layer, segment, head, first, count, c->queries,
                                 c->query_scales, &c->scratch[thread], c->mixed);
        }
        before += blocks * s->kv_heads;
    }
    finish(c, thread, phase);
}

static void run_layers(void *context, int thread) {
    pd_context *c = context;
    const pd_shape *s = &c->shape;
    const int queries = s->heads * s->head_dim;
    const int inner = padded(s->inner), wide = padded(s->hidden);
    for (int i = 0; i < c->stop; i++) {
        const pd_layer *layer = &c->layers[i];
        normalise(c, thread, 0, layer->input_norm, layer->qkv.planes);
        multiply(c, thread, 1, &layer->qkv, c->rows, STORE, c->qkv, layer->qkv.rows);
        attend(c, thread, 2, 3, i);
        quantise(c, thread, 4, c->mixed, queries, queries, layer->out.planes);
        multiply(c, thread, 5, &layer->out, c->rows, ADD, c->x, wide);
        normalise(c, thread, 6, layer->post_norm, layer->gate_up.planes);
        multiply(c, thread, 7, &layer->gate_up, c->rows, GATE, c->inner, inner);
        quantise(c, thread, 8, c->inner, s->inner, inner, layer->down.planes);
        multiply(c, thread, 9, &layer->down, c->rows, ADD, c->x, wide);
    }
}

static void run_head(void *context, int thread) {
    pd_context *c = context;
    quantise(c, thread, 10, c->x, c->shape.hidden, padded(c->shape.hidden), c->head->planes);
    multiply(c, thread, 11, c->head, c->rows, STORE, c->logits, c->head->rows);
}

static int run(pd_context *c, void (*work)(void *, int)) {
    for (int i = 0; i < PHASES; i++) atomic_store(&c->next[i], 0);
    atomic_store(&c->bad, 0);
    if (c->team)
        pd_team_run(c->team, work, c);
    else
        work(c, 0);
    return atomic_load(&c->bad) ? -2 : 0;
}

/* Run the residual stream x, rows of `hidden` padded to 32, through layers 0 .. stop, in place. Returns 0; -1: no
   memory; -2: a number is not finite. */
EXPORT int pd_run(pd_context *c, const pd_layer *layers, int stop, float *x, int rows,
                  const float *cos, const float *sin, pd_segment *segments, int num_segments) {
    int most = 0;
    for (int i = 0; i < num_segments; i++)
        most = segments[i].start + segments[i].count > most ? segments[i].start + segments[i].count : most;
    if (reserve_scratch(c, most)) return -1;
    c->layers = layers;
    c->stop = stop;
    c->x = x;
    c->rows = rows;
    c->cos = cos;
    c->sin = sin;
    c->segments = segments;
    c->num_segments = num_segments;
    return run(c, run_layers);
}

/* Rows of a weight of 8 bits by their numbers, as floats: x [count][cols]. Returns 0; -3: there is no such row. */
EXPORT int pd_embed(const pd_linear *w, const int64_t *ids, int count, float *x) {
    for (int r = 0; r < count; r++, x += w->cols) {
        const int64_t id = ids[r];
        if (id < 0 || id >= w->rows) return -3;
        const uint8_t *codes = w->codes + (size_t)(id / PANEL) * PANEL * w->cols + id % PANEL * 4;
        for (int i = 0; i < w->cols; i++) x[i] = (float)(codes[i / 4 * 64 + i % 4] - 128) * w->scales[id];
    }
    return 0;
}

/* Normalise rows, in place. */
EXPORT int pd_norm(pd_context *c, const float *weight, float *x, int rows) {
    int bad = 0;
    for (int r = 0; r < rows; r++) {
        float *row = x + (size_t)r * padded(c->shape.hidden);
        bad |= c->functions->norm(row, weight, c->shape.hidden, c->shape.eps, row);
    }
    return bad ? -2 : 0;
}

/* Multiply rows, at most max_rows, by the output layer: logits [rows][head->rows]. */
EXPORT int pd_logits(pd_context *c, const pd_linear *head, const float *x, int rows, float *logits) {
    c->head = head;
    c->x = (float *)x;
    c->rows = rows;
    c->logits = logits;
    return run(c, run_head);
}

/* The queries of the last layer that ran: codes [rows][heads][head_dim] and scales [rows][heads]. */
EXPORT void pd_queries(const pd_context *c, int rows, int8_t *codes, float *scales) {
    memcpy(codes, c->queries, (size_t)rows * c->shape.heads * c->shape.head_dim);
    memcpy(scales, c->query_scales, (size_t)rows * c->shape.heads * sizeof *scales);
}

/* Counts up when a structure or a function changes. */
EXPORT int pd_abi(void) { return 2; }
