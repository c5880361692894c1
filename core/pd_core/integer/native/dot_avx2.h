/* AVX2: products of 16-bit integers, two and their sum in one instruction. */
#include <immintrin.h>

#define PD_ISA "avx2"
#define PD_FUNCTIONS pd_avx2
#define INLINE static inline __attribute__((always_inline))

/* Four bytes, widened to 16 bits, in every lane of 64 bits. */
INLINE __m256i four_wide(const int8_t *x) {
    return _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four(x))));
}

/* Four integers of a row, of one or two planes. */
INLINE __m256i four_of(const int8_t *x, size_t high) {
    if (!high) return four_wide(x);
    const __m256i above = _mm256_slli_epi16(four_wide(x + high), HIGH);
    return _mm256_add_epi16(four_wide(x), above);
}

INLINE __m256i four_wide_unsigned(const uint8_t *x) {
    return _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four(x))));
}

INLINE __m256i sixteen_unsigned(const uint8_t *at) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at));
}

/* Each column has two neighbouring lanes; add them: columns 0 .. 8 of a and b. */
INLINE __m256i pairs(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

/* One row, one panel. */
INLINE void bytes_row(const uint8_t *codes, const int8_t *x, size_t high, __m256i sum[4]) {
    for (int k = 0; k < 8; k++) {
        const __m256i wide = four_of(x + k * 4, high);
        for (int v = 0; v < 4; v++)
            sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(sixteen_unsigned(codes + k * 64 + v * 16), wide));
    }
}

INLINE void nibbles_row(const uint8_t *codes, const int8_t *x, size_t high, __m256i sum[4]) {
    const __m128i nibble = _mm_set1_epi8(15);
    for (int k = 0; k < 4; k++) {
        const __m256i first = four_of(x + k * 4, high), second = four_of(x + 16 + k * 4, high);
        for (int v = 0; v < 4; v++) {
            const __m128i pair = _mm_loadu_si128((const __m128i *)(codes + k * 64 + v * 16));
            const __m256i one = _mm256_cvtepu8_epi16(_mm_and_si128(pair, nibble));
            const __m256i two = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(pair, 4), nibble));
            sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(one, first));
            sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(two, second));
        }
    }
}

static void dot_bytes(const pd_block *b, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < b->num_rows; r++) {
        const __m256i less = _mm256_set1_epi32(excess(b, r));
        __m256i total[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int g = 0; g < b->groups; g++) {
            __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256(), _mm256_setzero_si256()};
            bytes_row(b->codes + (size_t)g * 512,
                      b->rows + r * b->row_codes + g * GROUP, b->high, sum);
            const __m128i shift = _mm_cvtsi32_si128(b->shifts[r * b->row_groups + g]);
            for (int h = 0; h < 2; h++)
                total[h] = _mm256_add_epi32(total[h], _mm256_sll_epi32(pairs(sum[2 * h], sum[2 * h + 1]), shift));
        }
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(out[r] + h * 8), _mm256_sub_epi32(total[h], less));
    }
}

static void dot_nibbles(const pd_block *b, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < b->num_rows; r++) {
        __m256i total[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int g = 0; g < b->groups; g++) {
            __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256(), _mm256_setzero_si256()};
            nibbles_row(b->codes + (size_t)g * 256,
                        b->rows + r * b->row_codes + g * GROUP, b->high, sum);
            const __m128i shift = _mm_cvtsi32_si128(b->shifts[r * b->row_groups + g]);
            const __m256i less = _mm256_set1_epi32(8 * b->sums[r * b->row_groups + g]);
            const uint8_t *steps = b->steps + (size_t)g * PANEL;
            for (int h = 0; h < 2; h++) {
                const __m256i step = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(steps + h * 8)));
                const __m256i whole = _mm256_sub_epi32(pairs(sum[2 * h], sum[2 * h + 1]), less);
                total[h] = _mm256_add_epi32(total[h], _mm256_mullo_epi32(_mm256_sll_epi32(whole, shift), step));
            }
        }
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(out[r] + h * 8), total[h]);
    }
}

static void dot_keys(const uint8_t *keys, const int8_t *const query[ROWS],
                     const int32_t offset[ROWS], int count, int dim, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < count; r++) {
        __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                          _mm256_setzero_si256()};
        for (int i = 0; i < dim; i += 4) {
            const __m256i q = four_wide(query[r] + i);
            for (int v = 0; v < 4; v++)
                sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(sixteen_unsigned(keys + (size_t)i * PANEL + v * 16), q));
        }
        const __m256i less = _mm256_set1_epi32(offset[r]);
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(out[r] + h * 8), _mm256_sub_epi32(pairs(sum[2 * h], sum[2 * h + 1]), less));
    }
}

/* Elements i .. i + 8 of one row. */
INLINE void mix_of(const int8_t *values, const uint8_t *low, const uint8_t *high, int first, int last,
                   int dim, int64_t *totals) {
    __m256i lows[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, highs[2] = {lows[0], lows[0]};
    for (int j = first; j < last; j++) {
        const __m256i l = four_wide_unsigned(low + j * 4), h = four_wide_unsigned(high + j * 4);
        for (int v = 0; v < 2; v++) {
            const int8_t *at = values + (size_t)j * dim * 4 + v * 16;
            const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)at));
            lows[v] = _mm256_add_epi32(lows[v], _mm256_madd_epi16(wide, l));
            highs[v] = _mm256_add_epi32(highs[v], _mm256_madd_epi16(wide, h));
        }
    }
    int32_t l[8], h[8];
    _mm256_storeu_si256((__m256i *)l, pairs(lows[0], lows[1]));
    _mm256_storeu_si256((__m256i *)h, pairs(highs[0], highs[1]));
    for (int i = 0; i < 8; i++) totals[i] += l[i] + 256 * (int64_t)h[i];
}

static void mix_values(const int8_t *values, const uint8_t *low, const uint8_t *high, size_t room,
                       int count, int blocks, int dim, int64_t *totals) {
    memset(totals, 0, sizeof *totals * (size_t)count * dim);
    for (int first = 0; first < blocks; first += MIX_BLOCKS) {
        const int last = blocks - first < MIX_BLOCKS ? blocks : first + MIX_BLOCKS;
        for (int r = 0; r < count; r++)
            for (int i = 0; i < dim; i += 8)
                mix_of(values + (size_t)i * 4, low + r * room, high + r * room, first, last, dim,
                       totals + r * dim + i);
    }
}
