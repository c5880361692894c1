/* Exact sums of products of small integers, one implementation for each instruction set.

   dot_bytes, dot_nibbles: rows of activations with a panel of a weight, over `groups` groups.
   dot_keys: rows of queries with a panel of keys. mix_values: weighted sums of values. */
#ifndef PD_DOT_H
#define PD_DOT_H

#include <stddef.h>
#include <string.h>

#include "kernel.h"

/* Some groups of a weight's panel, and of the rows that meet them. One panel at a time: memory
   gives most when it is read in one line. */
typedef struct {
    const uint8_t *codes, *steps;
    const int8_t *rows;
    const int32_t *shifts, *sums;
    size_t row_codes, row_groups; /* distances of rows */
    size_t high; /* distance of the high plane; 0: there is one plane */
    int num_rows, groups;
} pd_block;

static inline int32_t four(const void *bytes) {
    int32_t out;
    memcpy(&out, bytes, sizeof out);
    return out;
}

/* The weights' 128 (or 8), which the products with unsigned codes have too much of. */
static inline int32_t excess(const pd_block *b, int row) {
    int32_t sum = 0;
    for (int g = 0; g < b->groups; g++)
        sum += b->sums[row * b->row_groups + g] * (1 << b->shifts[row * b->row_groups + g]);
    return sum * 128;
}

/* Keys between two additions to 64 bits: 255 * 127 * this stays below 2^31. */
enum { MIX_BLOCKS = 16384 };

/* PD_PORTABLE: a compiler's default may be a processor that has more (Apple's has). */
#if defined(PD_PORTABLE)
#include "dot_portable.h"
#elif defined(__AVX512VNNI__)
#include "dot_avx512.h"
#elif defined(__AVX2__)
#include "dot_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "dot_neon.h"
#else
#include "dot_portable.h"
#endif

#endif
