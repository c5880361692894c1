/* Prints a digest of the bits that the kernels of one instruction set give for fixed inputs, a line
   for each function and shape: `digests portable`. Ends with 77 where the processor has it not.
   Inputs lie in memory of exactly their size, so that a sanitizer sees what is read beyond. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { ABSENT = 77, SHARED_LAYERS = 3 };

typedef struct pd_context pd_context;
const char *pd_isa(const char *wanted);
pd_context *pd_open(const pd_shape *shape, const char *isa, int threads, int max_rows, int widest);
void pd_close(pd_context *c);
int pd_run(pd_context *c, const pd_layer *layers, int stop, float *x, int rows, const float *cos,
           const float *sin, pd_segment *segments, int num_segments);
int pd_norm(pd_context *c, const float *weight, float *x, int rows);
int pd_logits(pd_context *c, const pd_linear *head, const float *x, int rows, float *logits);
void pd_queries(const pd_context *c, int rows, int8_t *codes, float *scales);

static const pd_functions *kernels;
static uint64_t state, digest;

static void begin(uint64_t seed) {
    state = seed;
    digest = 1469598103934665603u;
}

static uint32_t next(void) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static int below(int limit) { return (int)(next() % (uint32_t)limit); }

/* A number between -1 and 1. */
static float number(void) { return (float)(below(1 << 24) - (1 << 23)) * 0x1p-23f; }

static void take_in(const void *bytes, size_t count) { /* FNV-1a */
    const unsigned char *at = bytes;
    for (size_t i = 0; i < count; i++) digest = (digest ^ at[i]) * 1099511628211u;
}

static void say(const char *name, int a, int b, int c) {
    printf("%s %d %d %d %016llx\n", name, a, b, c, (unsigned long long)digest);
}

static void *room(size_t bytes) {
    void *made = calloc(bytes ? bytes : 1, 1);
    if (!made) exit(1);
    return made;
}

static float *numbers(int count, float centre, float spread) {
    float *made = room((size_t)count * sizeof *made);
    for (int i = 0; i < count; i++) made[i] = centre + spread * number();
    return made;
}

static uint8_t *bytes_of(size_t count, int first, int past) {
    uint8_t *made = room(count);
    for (size_t i = 0; i < count; i++) made[i] = (uint8_t)(first + below(past - first));
    return made;
}

enum { PLAIN, OUTLIER, TINY, ZEROS, EXTREME, LARGE, NOT_A_NUMBER, INFINITE, KINDS };

static float *row_of(int kind, int count) {
    float *x = numbers(count, 0, kind == TINY ? 0x1p-101f : kind == LARGE ? 0x1p127f : 3);
    if (kind == OUTLIER) x[below(count)] = -4000;
    if (kind == ZEROS) memset(x, 0, (size_t)count * sizeof *x);
    if (kind == EXTREME)
        for (int i = 0; i < count; i++) x[i] = x[i] < 0 ? -5 : 5;
    if (kind == NOT_A_NUMBER) x[below(count)] = NAN;
    if (kind == INFINITE) x[below(count)] = -INFINITY;
    return x;
}

static pd_rows rows_of(int rows, int planes, int cols) {
    const size_t groups = (size_t)rows * (cols / GROUP);
    return (pd_rows){room((size_t)rows * planes * cols), room(groups * 4), room(groups * 4),
                     room((size_t)rows * 4)};
}

static void free_rows(pd_rows *x) {
    free(x->codes);
    free(x->shifts);
    free(x->sums);
    free(x->scales);
}

static void take_in_rows(const pd_rows *x, int rows, int planes, int cols) {
    const size_t groups = (size_t)rows * (cols / GROUP);
    take_in(x->codes, (size_t)rows * planes * cols);
    take_in(x->shifts, groups * 4);
    take_in(x->sums, groups * 4);
    take_in(x->scales, (size_t)rows * 4);
}

static void quantise_and_norm(int count) {
    const int cols = (count + GROUP - 1) / GROUP * GROUP;
    for (int kind = 0; kind < KINDS; kind++) {
        begin(1000 + (uint64_t)count);
        float *x = row_of(kind, count), *weight = numbers(count, 1, 0.5f), *y = room((size_t)count * 4);
        for (int planes = 1; planes <= 2; planes++) {
            pd_rows to = rows_of(1, planes, cols);
            const int bad = kernels->quantise(x, count, cols, planes, &to, 0);
            take_in(&bad, sizeof bad);
            if (!bad) take_in_rows(&to, 1, planes, cols);
            free_rows(&to);
        }
        say("quantise", count, kind, 0);
        const int bad = kernels->norm(x, weight, count, 1e-5f, y);
        take_in(&bad, sizeof bad);
        if (!bad) take_in(y, (size_t)count * 4);
        say("norm", count, kind, 0);
        free(x);
        free(weight);
        free(y);
    }
}

static pd_linear weight_of(int rows, int cols, int bits, int planes, int extreme) {
    const size_t codes = (size_t)rows * cols, steps = codes / GROUP;
    pd_linear w = {.rows = rows, .cols = cols, .bits = bits, .planes = planes};
    uint8_t *made = bits == 4 ? bytes_of(codes / 2, 0, 256) : bytes_of(codes, 1, 256);
    if (extreme) memset(made, bits == 4 ? 0 : 1, bits == 4 ? codes / 2 : codes);
    w.codes = made;
    w.steps = bits == 4 ? bytes_of(steps, extreme ? 63 : 0, 64) : 0;
    w.scales = numbers(rows, 0.01f, 0.005f);
    w.bias = numbers(rows, 0, 1);
    return w;
}

static void free_weight(pd_linear *w) {
    free((void *)w->codes);
    free((void *)w->steps);
    free((void *)w->scales);
    free((void *)w->bias);
}

static void linear(int cols, int bits, int planes, int extreme) {
    enum { OUTPUTS = 64, MOST = 9 };
    begin(2000 + (uint64_t)(cols * 8 + bits + planes));
    pd_linear w = weight_of(OUTPUTS, cols, bits, planes, extreme);
    const float *bias = w.bias;
    pd_rows x = rows_of(MOST, planes, cols);
    for (int r = 0; r < MOST; r++) {
        float *row = row_of(extreme ? EXTREME : r % (OUTLIER + 1), cols);
        for (int i = 0; extreme && i < cols; i++) row[i] = r % 2 ? -5 : 5;
        kernels->quantise(row, cols, cols, planes, &x, r);
        free(row);
    }
    float *before = numbers(MOST * OUTPUTS, 0, 1), *y = room(MOST * OUTPUTS * sizeof *y);
    for (int kind = STORE; kind <= GATE; kind++)
        for (int rows = 1; rows <= MOST; rows += rows < 5 ? 1 : 4) {
            memcpy(y, before, MOST * OUTPUTS * sizeof *y);
            w.bias = rows % 2 ? bias : 0;
            const int stride = kind == GATE ? OUTPUTS / 2 : OUTPUTS;
            for (int first = 0; first < OUTPUTS / PANEL; first += 2)
                kernels->linear(&w, &x, rows, first, kind, y, stride);
            take_in(y, MOST * OUTPUTS * sizeof *y);
        }
    say(bits == 4 ? "linear4" : "linear8", cols, planes, extreme);
    w.bias = bias;
    free_weight(&w);
    free_rows(&x);
    free(before);
    free(y);
}

static pd_cached cache_of(int heads, int capacity, int dim, int extreme) {
    const size_t places = (size_t)heads * capacity;
    pd_cached made = {.keys = bytes_of(places * dim, extreme ? 255 : 1, 256),
                      .key_scales = numbers((int)places, 0.02f, 0.01f),
                      .values = (int8_t *)bytes_of(places * dim, 129, extreme ? 130 : 384),
                      .value_scales = numbers((int)places, 0.02f, extreme ? 0 : 0.01f)};
    for (size_t i = 0; i < places * dim; i++) /* -128 is no code */
        if (made.values[i] == -128) made.values[i] = 0;
    return made;
}

static void free_cache(pd_cached *cache) {
    free(cache->keys);
    free(cache->key_scales);
    free(cache->values);
    free(cache->value_scales);
}

static void take_in_cache(const pd_cached *cache, int heads, int capacity, int dim) {
    const size_t places = (size_t)heads * capacity;
    take_in(cache->keys, places * dim);
    take_in(cache->key_scales, places * 4);
    take_in(cache->values, places * dim);
    take_in(cache->value_scales, places * 4);
}

static void heads(int dim, int normed) {
    enum { QUERIES = 4, OWN = 2, CAPACITY = 32 };
    begin(3000 + (uint64_t)dim);
    const pd_shape shape = {dim * QUERIES, 64, 1, QUERIES, OWN, dim, 1e-5f};
    float *norms = numbers(dim, 1, 0.25f);
    pd_layer layer = {.own_keys = OWN, .own_values = 1};
    if (normed) layer.query_norm = layer.key_norm = norms;
    pd_cached cache = cache_of(OWN, CAPACITY, dim, 0);
    int8_t *queries = room((size_t)QUERIES * dim);
    float scales[QUERIES];
    for (int kind = PLAIN; kind <= LARGE; kind++) {
        float *qkv = row_of(kind, (QUERIES + OWN + 1) * dim);
        float *cos = numbers(dim / 2, 0, 1), *sin = numbers(dim / 2, 0, 1);
        int bad = 0;
        for (int head = 0; head < OWN; head++)
            bad |= kernels->heads(&shape, &layer, head, qkv, cos, sin, &cache, CAPACITY, 13 + kind,
                                  queries, scales);
        take_in(&bad, sizeof bad);
        take_in(queries, (size_t)QUERIES * dim);
        take_in(scales, sizeof scales);
        free(qkv);
        free(cos);
        free(sin);
    }
    take_in_cache(&cache, OWN, CAPACITY, dim);
    say("heads", dim, normed, 0);
    free(queries);
    free(norms);
    free_cache(&cache);
}

static void attend(int dim, int start, int extreme) {
    enum { GROUPED = 3, KV = 2, TOKENS = 3 };
    const int capacity = (start + TOKENS + 15) / 16 * 16, all = GROUPED * KV * TOKENS;
    begin(4000 + (uint64_t)(dim * 7 + start));
    const pd_shape shape = {64, 64, 1, GROUPED * KV, KV, dim, 1e-5f};
    const pd_layer layer = {.own_keys = KV, .own_values = KV};
    pd_cached cache = cache_of(KV, capacity, dim, extreme);
    pd_segment segment = {&cache, capacity, start, TOKENS, 0};
    int8_t *queries = (int8_t *)bytes_of((size_t)all * dim, 129, 384);
    for (int i = 0; i < all * dim; i++) queries[i] = extreme ? 127 : queries[i] == -128 ? 0 : queries[i];
    float *scales = numbers(all, 0.01f, 0.005f), *mixed = room((size_t)all * dim * 4);
    pd_scratch scratch = {room((size_t)ROWS * capacity * 4), room((size_t)ROWS * capacity),
                          room((size_t)ROWS * capacity), capacity};
    for (int head = 0; head < KV; head++)
        for (int first = 0, count; first < GROUPED * TOKENS; first += count) {
            count = 1 + (first + head) % ROWS;
            if (count > GROUPED * TOKENS - first) count = GROUPED * TOKENS - first;
            kernels->attend(&shape, &layer, 0, &segment, head, first, count, queries, scales, &scratch,
                            mixed);
        }
    take_in(mixed, (size_t)all * dim * 4);
    say("attend", dim, start, extreme);
    free(queries);
    free(scales);
    free(mixed);
    free(scratch.scores);
    free(scratch.low);
    free(scratch.high);
    free_cache(&cache);
}

/* Layers that share keys and values as SkipV1Former's do, two sequences, and the logits. */
static void whole_pass(int threads) {
    enum { HIDDEN = 96, INNER = 160, HEADS = 6, KV = 2, DIM = 16, CAPACITY = 64, VOCABULARY = 128 };
    enum { FIRST = 21, SECOND = 5, TOTAL = FIRST + SECOND, NARROW = (HEADS + 2 * KV) * DIM };
    begin(5000);
    const pd_shape shape = {HIDDEN, INNER, SHARED_LAYERS, HEADS, KV, DIM, 1e-5f};
    pd_layer layers[SHARED_LAYERS];
    pd_cached caches[2][SHARED_LAYERS];
    float *ones = numbers(HIDDEN, 1, 0.25f), *small = numbers(DIM, 1, 0.25f);
    for (int i = 0; i < SHARED_LAYERS; i++) {
        layers[i] = (pd_layer){
            weight_of(NARROW, HIDDEN, 8, 2, 0), weight_of(HIDDEN, HEADS * DIM, i % 2 ? 4 : 8, 2, 0),
            weight_of(2 * INNER, HIDDEN, 8, 1, 0), weight_of(HIDDEN, INNER, 8, 2, 0),
            ones, ones, i % 2 ? small : 0, i % 2 ? small : 0, KV, i ? KV - 1 : KV, i == 2 ? 1 : i};
        for (int s = 0; s < 2; s++) caches[s][i] = cache_of(KV, CAPACITY, DIM, 0);
    }
    pd_linear head = weight_of(VOCABULARY, HIDDEN, 8, 2, 0);
    float *x = numbers(TOTAL * HIDDEN, 0, 2), *logits = room(TOTAL * VOCABULARY * sizeof *logits);
    float *cos = numbers(TOTAL * DIM / 2, 0, 1), *sin = numbers(TOTAL * DIM / 2, 0, 1);
    pd_segment segments[] = {{caches[0], CAPACITY, 11, FIRST, 0}, {caches[1], CAPACITY, 30, SECOND, FIRST}};
    int8_t queries[TOTAL * HEADS * DIM];
    float scales[TOTAL * HEADS];
    pd_context *c = pd_open(&shape, kernels->name, threads, TOTAL, INNER);
    if (!c) exit(1);
    int code = pd_run(c, layers, SHARED_LAYERS, x, TOTAL, cos, sin, segments, 2);
    pd_queries(c, TOTAL, queries, scales);
    code |= pd_norm(c, ones, x, TOTAL) | pd_logits(c, &head, x, TOTAL, logits);
    pd_close(c);
    take_in(&code, sizeof code);
    take_in(queries, sizeof queries);
    take_in(scales, sizeof scales);
    take_in(logits, TOTAL * VOCABULARY * sizeof *logits);
    for (int i = 0; i < SHARED_LAYERS; i++) {
        for (int s = 0; s < 2; s++) {
            take_in_cache(&caches[s][i], KV, CAPACITY, DIM);
            free_cache(&caches[s][i]);
        }
        pd_linear *weights[] = {&layers[i].qkv, &layers[i].out, &layers[i].gate_up, &layers[i].down};
        for (int w = 0; w < 4; w++) free_weight(weights[w]);
    }
    say("pass", code, 0, 0); /* the same for any number of threads */
    free_weight(&head);
    float *floats[] = {ones, small, x, logits, cos, sin};
    for (int i = 0; i < 6; i++) free(floats[i]);
}

static const pd_functions *named(const char *name) {
    const pd_functions *all[] = {
        &pd_portable,
#if defined(__x86_64__) || defined(_M_X64)
        &pd_avx2, &pd_avx512,
#elif defined(__aarch64__)
        &pd_dotprod,
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->name, name)) return all[i];
    return 0;
}

int main(int count, char **words) {
    const char *name = count > 1 ? words[1] : "portable";
    kernels = named(name);
    if (!kernels || strcmp(pd_isa(name), name)) {
        fprintf(stderr, "this processor has no %s\n", name);
        return ABSENT;
    }
    static const int counts[] = {1, 16, 31, 32, 33, 100, 576, 1536};
    for (int i = 0; i < 8; i++) quantise_and_norm(counts[i]);
    static const int cols[] = {32, 96, 2048, 2080, 8192, 8224}; /* of 64, 65, 256, 257 groups */
    for (int i = 0; i < 6; i++)
        for (int way = 0; way < 8; way++) linear(cols[i], way & 1 ? 4 : 8, way & 2 ? 2 : 1, way >> 2);
    static const int dims[] = {16, 48, 64, 80, 128, 256};
    for (int i = 0; i < 6; i++) {
        heads(dims[i], 0);
        heads(dims[i], 1);
        static const int starts[] = {0, 13, 100, 601};
        for (int s = 0; s < 4; s++) attend(dims[i], starts[s], 0);
        attend(dims[i], 40, 1);
    }
    attend(16, 65700, 1); /* more keys than 32 bits of sums hold */
    whole_pass(1);
    whole_pass(2);
    return 0;
}
