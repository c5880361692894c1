/* The kernels of integer numerics, compiled once for each instruction set.

   Products and elementwise operations only: compiled without contraction, every float operation
   rounds exactly once, so that all instruction sets give the same bits. */
#include "kernel.h"

#include <math.h>
#include <string.h>

#include "dot.h"

/* Round |x| <= 2^22 to the nearest integer, ties to even. */
static inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* The largest absolute value, compared as integers: exact, and NaN counts as the largest. */
static float largest(const float *x, int count) {
    const int32_t *bits = (const int32_t *)x;
    int32_t most = 0;
    for (int i = 0; i < count; i++) {
        int32_t b = bits[i] & 0x7fffffff;
        most = b > most ? b : most;
    }
    float out;
    memcpy(&out, &most, sizeof out);
    return out;
}

/* The largest value, compared as integers in the same order: compilers keep float maxima scalar. */
static float highest(const float *x, int count) {
    const int32_t *bits = (const int32_t *)x;
    int32_t most = INT32_MIN;
    for (int i = 0; i < count; i++) {
        int32_t b = bits[i] ^ (int32_t)((uint32_t)(bits[i] >> 31) >> 1);
        most = b > most ? b : most;
    }
    most ^= (int32_t)((uint32_t)(most >> 31) >> 1);
    float out;
    memcpy(&out, &most, sizeof out);
    return out;
}

/* Whether a row, of which the largest absolute value is given, is no row of numbers. */
static inline int is_bad(float most) { return !(most <= 3.4e38f); }

/* Whether a row is so small that it counts as zeros; below, top / most would overflow. */
static inline int is_zero(float most) { return most < 0x1p-100f; }

/* exp(x) for -87 <= x <= 88 (clamped), as in Cephes. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = nearest(x * 1.44269504088896341f);
    x = x - n * 0.693359375f;
    x = x - n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * (x * x) + x + 1.0f;
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return y * power;
}

/* One group by one plane. */
static void one_plane(const float *x, float factor, int8_t *codes, int32_t *shift, int32_t *sum) {
    const float top = largest(x, GROUP) * factor;
    *shift = (top >= 127.5f) + (top >= 255.0f) + (top >= 510.0f) + (top >= 1020.0f);
    const float back = 1.0f / (float)(1 << *shift);
    int32_t total = 0;
    for (int i = 0; i < GROUP; i++) {
        const int32_t code = (int32_t)nearest(x[i] * factor * back);
        codes[i] = (int8_t)code;
        total += code;
    }
    *sum = total;
}

static void two_planes(const float *x, float factor, int8_t *low, int8_t *high, int32_t *sum) {
    int32_t total = 0;
    for (int i = 0; i < GROUP; i++) {
        const int32_t code = (int32_t)nearest(x[i] * factor), above = (code + 32) >> HIGH;
        low[i] = (int8_t)(code - above * (1 << HIGH));
        high[i] = (int8_t)above;
        total += code;
    }
    *sum = total;
}

static int quantise(const float *x, int count, int cols, int planes, pd_rows *to, int row) {
    int8_t *codes = to->codes + (size_t)row * planes * cols;
    int32_t *shifts = to->shifts + (size_t)row * (cols / GROUP);
    int32_t *sums = to->sums + (size_t)row * (cols / GROUP);
    const float most = largest(x, count), top = planes == 2 ? WIDE_TOP : TOP;
    memset(shifts, 0, sizeof *shifts * (size_t)(cols / GROUP));
    if (is_bad(most) || is_zero(most)) {
        memset(codes, 0, (size_t)planes * cols);
        memset(sums, 0, sizeof *sums * (size_t)(cols / GROUP));
        to->scales[row] = 0.0f;
        return is_bad(most);
    }
    const float factor = top / most;
    to->scales[row] = most / top;
    for (int g = 0; g < cols / GROUP; g++) {
        const int at = g * GROUP, left = count - at;
        float end[GROUP] = {0};
        const float *part = x + at;
        if (left < GROUP) part = memcpy(end, x + at, sizeof *x * (size_t)(left > 0 ? left : 0));
        if (planes == 2)
            two_planes(part, factor, codes + at, codes + cols + at, &sums[g]);
        else
            one_plane(part, factor, codes + at, &shifts[g], &sums[g]);
    }
    return 0;
}

static int norm(const float *x, const float *weight, int count, float eps, float *y) {
    const float most = largest(x, count);
    if (is_bad(most) || is_zero(most)) {
        memset(y, 0, sizeof *y * (size_t)count);
        return is_bad(most);
    }
    const float factor = (float)NORM_TOP / most;
    int64_t squares = 0;
    for (int i = 0; i < count; i++) {
        int32_t code = (int32_t)nearest(x[i] * factor);
        squares += code * code;
    }
    const double unit = (double)most / (double)NORM_TOP;
    const double mean = (double)squares * (unit * unit) / (double)count;
    const float scale = (float)(1.0 / sqrt(mean + (double)eps));
    for (int i = 0; i < count; i++) y[i] = (x[i] * scale) * weight[i];
    return 0;
}

/* Sums of products of ROWS or fewer rows with a panel; groups first_group on, as many as given. */
static void products(const pd_linear *w, const pd_rows *x, int row, int rows, int panel,
                     int first_group, int groups, int32_t sums[ROWS][PANEL]) {
    const size_t all = (size_t)w->cols / GROUP, bytes = w->bits == 4 ? 256 : 512;
    const pd_block block = {
        .codes = w->codes + (panel * all + first_group) * bytes,
        .steps = w->steps ? w->steps + (panel * all + first_group) * PANEL : 0,
        .rows = x->codes + (size_t)row * w->planes * w->cols + first_group * GROUP,
        .shifts = x->shifts + row * all + first_group,
        .sums = x->sums + row * all + first_group,
        .row_codes = (size_t)w->planes * w->cols,
        .high = w->planes == 2 ? (size_t)w->cols : 0,
        .row_groups = all,
        .num_rows = rows,
        .groups = groups,
    };
    if (w->bits == 4)
        dot_nibbles(&block, sums);
    else
        dot_bytes(&block, sums);
}

/* The same over all groups, as floats, whose rows lie two panels apart: summed in 64 bits where 32
   might not hold them. */
static void exact_products(const pd_linear *w, const pd_rows *x, int row, int rows, int panel,
                           float *out) {
    const int groups = w->cols / GROUP, most = w->bits == 4 ? MOST_GROUPS_4 : MOST_GROUPS_8;
    int32_t sums[ROWS][PANEL];
    products(w, x, row, rows, panel, 0, groups < most ? groups : most, sums);
    if (groups <= most) {
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < PANEL; i++) out[r * 2 * PANEL + i] = (float)sums[r][i];
        return;
    }
    int64_t totals[ROWS][PANEL];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < PANEL; i++) totals[r][i] = sums[r][i];
    for (int g = most; g < groups; g += most) {
        products(w, x, row, rows, panel, g, groups - g < most ? groups - g : most, sums);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < PANEL; i++) totals[r][i] += sums[r][i];
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < PANEL; i++) out[r * 2 * PANEL + i] = (float)totals[r][i];
}

static void linear(const pd_linear *w, const pd_rows *x, int rows, int panel, int kind, float *y,
                   int stride) {
    const float *scales = w->scales + panel * PANEL;
    float sums[ROWS][2 * PANEL], out[2 * PANEL];
    for (int row = 0; row < rows; row += ROWS) {
        const int count = rows - row < ROWS ? rows - row : ROWS;
        for (int p = 0; p < 2; p++) exact_products(w, x, row, count, panel + p, sums[0] + p * PANEL);
        for (int r = 0; r < count; r++) {
            const float scale = x->scales[row + r];
            for (int i = 0; i < 2 * PANEL; i++) out[i] = sums[r][i] * scale * scales[i];
            if (w->bias)
                for (int i = 0; i < 2 * PANEL; i++) out[i] = out[i] + w->bias[panel * PANEL + i];
            float *to = y + (size_t)(row + r) * stride + (kind == GATE ? panel / 2 : panel) * PANEL;
            if (kind == GATE)
                for (int i = 0; i < PANEL; i++)
                    to[i] = out[i] / (1.0f + exponential(-out[i])) * out[PANEL + i];
            else if (kind == ADD)
                for (int i = 0; i < 2 * PANEL; i++) to[i] = to[i] + out[i];
            else
                memcpy(to, out, sizeof out);
        }
    }
}

/* Quantise a head of dim elements to 8 bits; return its scale. */
static float quantise_head(const float *x, int dim, int8_t *codes) {
    const float most = largest(x, dim);
    if (is_zero(most)) {
        memset(codes, 0, (size_t)dim);
        return 0.0f;
    }
    const float factor = (float)HEAD_TOP / most;
    for (int i = 0; i < dim; i++) codes[i] = (int8_t)(int32_t)nearest(x[i] * factor);
    return most / (float)HEAD_TOP;
}

static void rotate(const float *x, const float *cos, const float *sin, int dim, float *y) {
    const int half = dim / 2;
    for (int i = 0; i < half; i++) {
        y[i] = x[i] * cos[i] - x[half + i] * sin[i];
        y[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
    }
}

enum { MOST_DIM = 512 };

/* Normalise (if the weight is not null), rotate and quantise a head; *bad becomes 1 if it is not
   finite. */
static float turned_head(const float *x, const float *norm_weight, const pd_shape *shape,
                         const float *cos, const float *sin, int8_t *codes, int *bad) {
    float normed[MOST_DIM], rotated[MOST_DIM];
    if (norm_weight) {
        *bad |= norm(x, norm_weight, shape->head_dim, shape->eps, normed);
        x = normed;
    }
    rotate(x, cos, sin, shape->head_dim, rotated);
    return quantise_head(rotated, shape->head_dim, codes);
}

static int heads(const pd_shape *shape, const pd_layer *layer, int kv_head, const float *qkv,
                 const float *cos, const float *sin, pd_cached *own, int capacity, int position,
                 int8_t *queries, float *query_scales) {
    const int dim = shape->head_dim, group = shape->heads / shape->kv_heads;
    const size_t at = (size_t)kv_head * capacity;
    const float *key = qkv + (shape->heads + kv_head) * dim, *value = key + layer->own_keys * dim;
    int8_t codes[MOST_DIM];
    int bad = 0;
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++)
        query_scales[h] = turned_head(qkv + h * dim, layer->query_norm, shape, cos, sin,
                                      queries + h * dim, &bad);
    if (kv_head < layer->own_keys) {
        own->key_scales[at + position] = turned_head(key, layer->key_norm, shape, cos, sin, codes, &bad);
        uint8_t *panel = own->keys + (at + position / PANEL * PANEL) * dim;
        for (int i = 0; i < dim; i++)
            panel[(i / 4 * PANEL + position % PANEL) * 4 + i % 4] = (uint8_t)(codes[i] + 128);
    }
    if (kv_head < layer->own_values) {
        own->value_scales[at + position] = quantise_head(value, dim, codes);
        int8_t *block = own->values + (at + position / 4 * 4) * dim;
        for (int i = 0; i < dim; i++) block[i * 4 + position % 4] = codes[i];
    }
    return bad;
}

/* Turn a row's scores into integer weights of values; return the factor of their mix. The scores
   are overwritten. A loop does one thing each, as compilers make vectors of such loops only. */
static double weigh(float *restrict scores, int count, float factor,
                    const float *restrict value_scales, uint8_t *restrict low,
                    uint8_t *restrict high) {
    const float most = highest(scores, count);
    for (int j = 0; j < count; j++) scores[j] = exponential((scores[j] - most) * factor);
    int64_t total = 0;
    for (int j = 0; j < count; j++) total += (int32_t)nearest(scores[j] * 4194304.0f);
    for (int j = 0; j < count; j++) scores[j] = scores[j] * value_scales[j];
    const float largest_weight = largest(scores, count);
    const int room = (count + 3) / 4 * 4;
    memset(low + count, 0, (size_t)(room - count));
    memset(high + count, 0, (size_t)(room - count));
    if (is_zero(largest_weight)) {
        memset(low, 0, (size_t)count);
        memset(high, 0, (size_t)count);
        return 0.0;
    }
    const float to_codes = (float)MIX_TOP / largest_weight;
    for (int j = 0; j < count; j++) {
        int32_t code = (int32_t)nearest(scores[j] * to_codes);
        low[j] = (uint8_t)(code & 255);
        high[j] = (uint8_t)(code >> 8);
    }
    return ((double)largest_weight / (double)MIX_TOP) / ((double)total * 0x1p-22);
}

/* Ask for `bytes` of memory that is needed soon. */
static void fetch(const void *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)at + i, 0, 2);
}

enum { AHEAD = 4 * PANEL }; /* keys */

static void attend(const pd_shape *shape, const pd_layer *layers, int layer,
                   const pd_segment *segment, int kv_head, int first, int count,
                   const int8_t *queries, const float *query_scales, pd_scratch *scratch,
                   float *mixed) {
    const int dim = shape->head_dim, group = shape->heads / shape->kv_heads;
    const int room = scratch->room;
    const pd_cached *own = &segment->cached[layer];
    const pd_cached *values_of = kv_head < layers[layer].own_values ? own : &segment->cached[0];
    const pd_cached *keys_of = &segment->cached[layers[layer].key_layer];
    const size_t head_at = (size_t)kv_head * segment->capacity;
    const float *key_scales = keys_of->key_scales + head_at;
    const float root = (float)(1.0 / sqrt((double)dim));
    const int8_t *query[ROWS];
    int32_t offset[ROWS];
    int seen[ROWS], most_seen = 0;
    for (int r = 0; r < count; r++) {
        const int token = (first + r) / group, head = kv_head * group + (first + r) % group;
        query[r] = queries + ((size_t)(segment->first_row + token) * shape->heads + head) * dim;
        offset[r] = 0;
        for (int i = 0; i < dim; i++) offset[r] += query[r][i];
        offset[r] *= 128;
        seen[r] = segment->start + token + 1;
        most_seen = seen[r] > most_seen ? seen[r] : most_seen;
    }
    const uint8_t *keys = keys_of->keys + head_at * dim;
    const int8_t *values = values_of->values + head_at * dim;
    for (int j = 0; j < most_seen; j += PANEL) {
        int32_t sums[ROWS][PANEL];
        if (first == 0) { /* later rows find them in the cache */
            fetch(keys + (size_t)(j + AHEAD) * dim, (size_t)PANEL * dim);
            fetch(values + (size_t)j * dim, (size_t)PANEL * dim);
        }
        dot_keys(keys + (size_t)j * dim, query, offset, count, dim, sums);
        for (int r = 0; r < count; r++)
            for (int i = 0; i < PANEL; i++)
                scratch->scores[(size_t)r * room + j + i] = (float)sums[r][i] * key_scales[j + i];
    }
    double factors[ROWS];
    for (int r = 0; r < count; r++) {
        const int token = (first + r) / group, head = kv_head * group + (first + r) % group;
        const float scale = query_scales[(size_t)(segment->first_row + token) * shape->heads + head] * root;
        float *row = scratch->scores + (size_t)r * room;
        uint8_t *low = scratch->low + (size_t)r * room, *high = scratch->high + (size_t)r * room;
        factors[r] = weigh(row, seen[r], scale, values_of->value_scales + head_at, low, high);
        const int end = (most_seen + 3) / 4 * 4, from = (seen[r] + 3) / 4 * 4;
        if (end > from) {
            memset(low + from, 0, (size_t)(end - from));
            memset(high + from, 0, (size_t)(end - from));
        }
    }
    int64_t totals[ROWS * MOST_DIM];
    mix_values(values, scratch->low, scratch->high, (size_t)room, count, (most_seen + 3) / 4, dim, totals);
    for (int r = 0; r < count; r++) {
        const int token = (first + r) / group, head = kv_head * group + (first + r) % group;
        float *to = mixed + ((size_t)(segment->first_row + token) * shape->heads + head) * dim;
        for (int i = 0; i < dim; i++) to[i] = (float)((double)totals[r * dim + i] * factors[r]);
    }
}

const pd_functions PD_FUNCTIONS = {PD_ISA, quantise, norm, linear, heads, attend};
