/* Integer numerics: what the kernels of all instruction sets share. The bits are defined in
   ../reference.py; every sum of many terms runs over integers, so its order is free. */
#ifndef PD_KERNEL_H
#define PD_KERNEL_H

#include <stdint.h>

enum {
    PANEL = 16,       /* output columns that lie together in a weight */
    GROUP = 32,       /* elements of an activation that share a shift */
    TOP = 127 * 16,   /* the largest activation of one plane: 8 bits and a shift of up to 4 */
    WIDE_TOP = 2047,  /* the largest of two planes: 12 bits */
    NORM_TOP = 32767, /* the largest element in a norm's sum of squares */
    HEAD_TOP = 127,   /* the largest element of a query, key or value */
    MIX_TOP = 32767,  /* the largest weight of a value */
    ROWS = 4,         /* rows that a block of products computes together */
    HIGH = 6,         /* bits of the low plane */
    /* Groups whose sums fit 32 bits: 32 * 127 * 2047 * 256, and 32 * 8 * 63 * 2047 * 64. */
    MOST_GROUPS_8 = 256,
    MOST_GROUPS_4 = 64
};

/* A weight (rows x cols), both padded to 32; its activations have `planes`, 1 or 2. codes: [rows / 16][cols / 4][16][4], each the
   weight + 128. With bits = 4: [rows / 16][cols / 32][4][16][4], two weights + 8 in a byte
   (elements i and i + 16 of a group), which count `steps`: [rows / 16][cols / 32][16] times. */
typedef struct {
    const uint8_t *codes;
    const uint8_t *steps;
    const float *scales; /* per row */
    const float *bias;   /* per row, or null */
    int32_t rows, cols, bits, planes;
} pd_linear;

/* Rows of activations as integers, times a scale for each row. One plane: code << shift; two:
   low + 64 * high, and no shift. */
typedef struct {
    int8_t *codes;   /* [rows][planes][cols], the low plane first */
    int32_t *shifts; /* [rows][cols / 32] */
    int32_t *sums;   /* [rows][cols / 32]: of the codes (or of the integers of two planes) */
    float *scales;   /* [rows] */
} pd_rows;

typedef struct {
    pd_linear qkv, out, gate_up, down;
    const float *input_norm, *post_norm, *query_norm, *key_norm; /* the last two: or null */
    int32_t own_keys, own_values; /* heads */
    int32_t key_layer;            /* whose keys it reads */
} pd_layer;

typedef struct {
    int32_t hidden, inner, num_layers, heads, kv_heads, head_dim; /* head_dim: a multiple of 16 */
    float eps;
} pd_shape;

/* The cache of one sequence in one layer. keys: [head][capacity / 16][dim / 4][16][4], each the
   element + 128; values: [head][capacity / 4][dim][4]; scales: [head][capacity]. */
typedef struct {
    uint8_t *keys;
    float *key_scales;
    int8_t *values;
    float *value_scales;
} pd_cached;

/* Consecutive tokens of one sequence. cached: one for each layer. */
typedef struct {
    pd_cached *cached;
    int32_t capacity, start, count, first_row;
} pd_segment;

/* What one thread needs for attention: scores and weights of ROWS rows. */
typedef struct {
    float *scores;     /* [ROWS][room] */
    uint8_t *low, *high; /* [ROWS][room] */
    int32_t room;
} pd_scratch;

enum { STORE, ADD, GATE };

/* The functions of one instruction set. */
typedef struct {
    const char *name;
    /* Quantise `count` elements of a row into row `row` of `to`, with zeros up to `cols`. */
    int (*quantise)(const float *x, int count, int cols, int planes, pd_rows *to, int row);
    /* Normalise a row, times weight, into y. */
    int (*norm)(const float *x, const float *weight, int count, float eps, float *y);
    /* Columns of panels first .. first + 2 of `rows` rows: y[row * stride + column]. */
    void (*linear)(const pd_linear *w, const pd_rows *x, int rows, int first, int kind, float *y,
                   int stride);
    /* Rotate and quantise a KV head of a token: its group's queries to codes and scales, the
       layer's own key and value to the cache. */
    int (*heads)(const pd_shape *shape, const pd_layer *layer, int kv_head, const float *qkv,
                 const float *cos, const float *sin, pd_cached *own, int capacity, int position,
                 int8_t *queries, float *query_scales);
    /* Attend from rows first .. first + count (token * group + head of the group) of a KV head. */
    void (*attend)(const pd_shape *shape, const pd_layer *layers, int layer,
                   const pd_segment *segment, int kv_head, int first, int count,
                   const int8_t *queries, const float *query_scales, pd_scratch *scratch,
                   float *mixed);
} pd_functions;

extern const pd_functions pd_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const pd_functions pd_avx2, pd_avx512;
#elif defined(__aarch64__)
extern const pd_functions pd_dotprod;
#endif

#endif
