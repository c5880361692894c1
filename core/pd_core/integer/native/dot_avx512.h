/* AVX-512 with VNNI: four products of bytes a lane, and their sum, in one instruction. */
#include <immintrin.h>

#define PD_ISA "avx512"
#define PD_FUNCTIONS pd_avx512
#define INLINE static inline __attribute__((always_inline))

/* Four bytes in every lane. */
INLINE __m512i all(const void *x) { return _mm512_set1_epi32(four(x)); }

/* One plane: each group's sum is shifted. */
INLINE void bytes_of(const pd_block *b, const int rows, int32_t out[ROWS][PANEL]) {
    __m512i total[ROWS];
    for (int r = 0; r < rows; r++) total[r] = _mm512_set1_epi32(-excess(b, r));
    for (int g = 0; g < b->groups; g++) {
        __m512i sum[ROWS];
        for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_si512();
        for (int k = g * 8; k < g * 8 + 8; k++) {
            const __m512i w = _mm512_loadu_si512(b->codes + (size_t)k * 64);
            for (int r = 0; r < rows; r++)
                sum[r] = _mm512_dpbusd_epi32(sum[r], w, all(b->rows + r * b->row_codes + k * 4));
        }
        for (int r = 0; r < rows; r++) {
            const __m128i shift = _mm_cvtsi32_si128(b->shifts[r * b->row_groups + g]);
            total[r] = _mm512_add_epi32(total[r], _mm512_sll_epi32(sum[r], shift));
        }
    }
    for (int r = 0; r < rows; r++) _mm512_storeu_si512(out[r], total[r]);
}

/* Two planes, which are summed apart to the end. */
INLINE void wide_bytes_of(const pd_block *b, const int rows, int32_t out[ROWS][PANEL]) {
    __m512i low[ROWS], high[ROWS];
    for (int r = 0; r < rows; r++) {
        low[r] = _mm512_set1_epi32(-excess(b, r));
        high[r] = _mm512_setzero_si512();
    }
    for (int k = 0; k < b->groups * 8; k++) {
        const __m512i w = _mm512_loadu_si512(b->codes + (size_t)k * 64);
        for (int r = 0; r < rows; r++) {
            const int8_t *x = b->rows + r * b->row_codes + k * 4;
            low[r] = _mm512_dpbusd_epi32(low[r], w, all(x));
            high[r] = _mm512_dpbusd_epi32(high[r], w, all(x + b->high));
        }
    }
    for (int r = 0; r < rows; r++)
        _mm512_storeu_si512(out[r], _mm512_add_epi32(low[r], _mm512_slli_epi32(high[r], HIGH)));
}

INLINE void nibbles_of(const pd_block *b, const int rows, const int wide, int32_t out[ROWS][PANEL]) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i total[ROWS];
    for (int r = 0; r < rows; r++) total[r] = _mm512_setzero_si512();
    for (int g = 0; g < b->groups; g++) {
        __m512i sum[ROWS], high[ROWS];
        for (int r = 0; r < rows; r++) {
            sum[r] = _mm512_set1_epi32(-8 * b->sums[r * b->row_groups + g]);
            high[r] = _mm512_setzero_si512();
        }
        for (int k = 0; k < 4; k++) {
            const __m512i pair = _mm512_loadu_si512(b->codes + (size_t)g * 256 + k * 64);
            const __m512i first = _mm512_and_si512(pair, nibble);
            const __m512i second = _mm512_and_si512(_mm512_srli_epi16(pair, 4), nibble);
            for (int r = 0; r < rows; r++) {
                const int8_t *x = b->rows + r * b->row_codes + g * GROUP + k * 4;
                sum[r] = _mm512_dpbusd_epi32(sum[r], first, all(x));
                sum[r] = _mm512_dpbusd_epi32(sum[r], second, all(x + 16));
                if (!wide) continue;
                high[r] = _mm512_dpbusd_epi32(high[r], first, all(x + b->high));
                high[r] = _mm512_dpbusd_epi32(high[r], second, all(x + b->high + 16));
            }
        }
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(b->steps + (size_t)g * PANEL));
        const __m512i steps = _mm512_cvtepu8_epi32(bytes);
        for (int r = 0; r < rows; r++) {
            const __m128i shift = _mm_cvtsi32_si128(b->shifts[r * b->row_groups + g]);
            const __m512i whole = wide ? _mm512_add_epi32(sum[r], _mm512_slli_epi32(high[r], HIGH))
                                       : _mm512_sll_epi32(sum[r], shift);
            total[r] = _mm512_add_epi32(total[r], _mm512_mullo_epi32(whole, steps));
        }
    }
    for (int r = 0; r < rows; r++) _mm512_storeu_si512(out[r], total[r]);
}

/* Call one of a function's versions for a fixed number of rows. */
#define BY_ROWS(rows, call)                                                                      \
    switch (rows) {                                                                              \
    case 1: call(1); break;                                                                      \
    case 2: call(2); break;                                                                      \
    case 3: call(3); break;                                                                      \
    default: call(4);                                                                            \
    }

static void dot_bytes(const pd_block *b, int32_t out[ROWS][PANEL]) {
#define NARROW(rows) bytes_of(b, rows, out)
#define WIDE(rows) wide_bytes_of(b, rows, out)
    if (b->high)
        BY_ROWS(b->num_rows, WIDE)
    else
        BY_ROWS(b->num_rows, NARROW)
#undef NARROW
#undef WIDE
}

static void dot_nibbles(const pd_block *b, int32_t out[ROWS][PANEL]) {
#define NARROW(rows) nibbles_of(b, rows, 0, out)
#define WIDE(rows) nibbles_of(b, rows, 1, out)
    if (b->high)
        BY_ROWS(b->num_rows, WIDE)
    else
        BY_ROWS(b->num_rows, NARROW)
#undef NARROW
#undef WIDE
}

/* A panel of keys with some queries. */
INLINE void keys_of(const uint8_t *keys, const int8_t *const query[ROWS], const int32_t offset[ROWS],
                    const int rows, int dim, int32_t out[ROWS][PANEL]) {
    __m512i sum[ROWS];
    for (int r = 0; r < rows; r++) sum[r] = _mm512_set1_epi32(-offset[r]);
    for (int i = 0; i < dim; i += 4) {
        const __m512i k = _mm512_loadu_si512(keys + (size_t)i * PANEL);
        for (int r = 0; r < rows; r++)
            sum[r] = _mm512_dpbusd_epi32(sum[r], k, all(query[r] + i));
    }
    for (int r = 0; r < rows; r++) _mm512_storeu_si512(out[r], sum[r]);
}

static void dot_keys(const uint8_t *keys, const int8_t *const query[ROWS],
                     const int32_t offset[ROWS], int count, int dim, int32_t out[ROWS][PANEL]) {
#define KEYS(rows) keys_of(keys, query, offset, rows, dim, out)
    BY_ROWS(count, KEYS)
#undef KEYS
}

/* `rows` rows, 16 * lanes elements from `values` on, blocks first .. last. */
INLINE void mix_of(const int8_t *values, const uint8_t *low, const uint8_t *high, size_t room,
                   const int rows, const int lanes, int first, int last, int dim, int64_t *totals) {
    __m512i lows[2][4], highs[2][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < lanes; v++) lows[r][v] = highs[r][v] = _mm512_setzero_si512();
    for (int j = first; j < last; j++)
        for (int v = 0; v < lanes; v++) {
            const __m512i at = _mm512_loadu_si512(values + ((size_t)j * dim + v * 16) * 4);
            for (int r = 0; r < rows; r++) {
                const __m512i l = all(low + r * room + j * 4);
                const __m512i h = all(high + r * room + j * 4);
                lows[r][v] = _mm512_dpbusd_epi32(lows[r][v], l, at);
                highs[r][v] = _mm512_dpbusd_epi32(highs[r][v], h, at);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < lanes; v++)
            for (int half = 0; half < 2; half++) {
                const __m256i l = half ? _mm512_extracti64x4_epi64(lows[r][v], 1) : _mm512_castsi512_si256(lows[r][v]);
                const __m256i h = half ? _mm512_extracti64x4_epi64(highs[r][v], 1) : _mm512_castsi512_si256(highs[r][v]);
                int64_t *to = totals + r * dim + v * 16 + half * 8;
                const __m512i both = _mm512_add_epi64(
                    _mm512_cvtepi32_epi64(l), _mm512_slli_epi64(_mm512_cvtepi32_epi64(h), 8));
                _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), both));
            }
}

static void mix_values(const int8_t *values, const uint8_t *low, const uint8_t *high, size_t room,
                       int count, int blocks, int dim, int64_t *totals) {
    memset(totals, 0, sizeof *totals * (size_t)count * dim);
    for (int first = 0; first < blocks; first += MIX_BLOCKS) {
        const int last = blocks - first < MIX_BLOCKS ? blocks : first + MIX_BLOCKS;
        for (int i = 0; i < dim; i += 64)
            for (int r = 0; r < count; r += 2) {
                const int8_t *v = values + (size_t)i * 4;
                const uint8_t *l = low + r * room, *h = high + r * room;
                int64_t *to = totals + r * dim + i;
                const int whole = dim - i >= 64;
                if (whole && count - r >= 2)
                    mix_of(v, l, h, room, 2, 4, first, last, dim, to);
                else if (whole)
                    mix_of(v, l, h, room, 1, 4, first, last, dim, to);
                else
                    for (int s = r; s < r + 2 && s < count; s++)
                        for (int c = 0; c < dim - i; c += 16)
                            mix_of(v + c * 4, low + s * room, high + s * room, room, 1, 1, first,
                                   last, dim, totals + s * dim + i + c);
            }
    }
}
