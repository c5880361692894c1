/* NEON with dot products: four products of signed bytes a lane, and their sum. */
#include <arm_neon.h>

#define PD_ISA "dotprod"
#define PD_FUNCTIONS pd_dotprod

static inline int8x16_t four_all(const void *x) { return vreinterpretq_s8_s32(vdupq_n_s32(four(x))); }

/* Codes that are too large by 128, as signed bytes. */
static inline int8x16_t centred(const uint8_t *at) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at), vdupq_n_u8(128)));
}

static void dot_bytes(const pd_block *b, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < b->num_rows; r++) {
        int32x4_t total[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int g = 0; g < b->groups; g++) {
            const uint8_t *codes = b->codes + (size_t)g * 512;
            const int8_t *x = b->rows + r * b->row_codes + g * GROUP;
            int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
            int32x4_t high[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
            for (int k = 0; k < 8; k++) {
                const int8x16_t all = four_all(x + k * 4);
                for (int v = 0; v < 4; v++)
                    sum[v] = vdotq_s32(sum[v], centred(codes + k * 64 + v * 16), all);
                if (!b->high) continue;
                const int8x16_t above = four_all(x + b->high + k * 4);
                for (int v = 0; v < 4; v++)
                    high[v] = vdotq_s32(high[v], centred(codes + k * 64 + v * 16), above);
            }
            if (b->high)
                for (int v = 0; v < 4; v++) sum[v] = vaddq_s32(sum[v], vshlq_n_s32(high[v], HIGH));
            const int32x4_t shift = vdupq_n_s32(b->shifts[r * b->row_groups + g]);
            for (int v = 0; v < 4; v++) total[v] = vaddq_s32(total[v], vshlq_s32(sum[v], shift));
        }
        for (int v = 0; v < 4; v++) vst1q_s32(out[r] + v * 4, total[v]);
    }
}

static void dot_nibbles(const pd_block *b, int32_t out[ROWS][PANEL]) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    const int8x16_t eight = vdupq_n_s8(8);
    for (int r = 0; r < b->num_rows; r++) {
        int32x4_t total[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int g = 0; g < b->groups; g++) {
            const uint8_t *codes = b->codes + (size_t)g * 256;
            const uint8_t *steps = b->steps + (size_t)g * PANEL;
            const int8_t *x = b->rows + r * b->row_codes + g * GROUP;
            int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
            int32x4_t high[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
            for (int k = 0; k < 4; k++)
                for (int v = 0; v < 4; v++) {
                    const uint8x16_t pair = vld1q_u8(codes + k * 64 + v * 16);
                    const int8x16_t first = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pair, nibble)), eight);
                    const int8x16_t second = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pair, 4)), eight);
                    sum[v] = vdotq_s32(sum[v], first, four_all(x + k * 4));
                    sum[v] = vdotq_s32(sum[v], second, four_all(x + 16 + k * 4));
                    if (!b->high) continue;
                    high[v] = vdotq_s32(high[v], first, four_all(x + b->high + k * 4));
                    high[v] = vdotq_s32(high[v], second, four_all(x + b->high + 16 + k * 4));
                }
            if (b->high)
                for (int v = 0; v < 4; v++) sum[v] = vaddq_s32(sum[v], vshlq_n_s32(high[v], HIGH));
            const int32x4_t shift = vdupq_n_s32(b->shifts[r * b->row_groups + g]);
            for (int v = 0; v < 4; v++) {
                const int32_t step[4] = {steps[v * 4], steps[v * 4 + 1], steps[v * 4 + 2], steps[v * 4 + 3]};
                total[v] = vmlaq_s32(total[v], vshlq_s32(sum[v], shift), vld1q_s32(step));
            }
        }
        for (int v = 0; v < 4; v++) vst1q_s32(out[r] + v * 4, total[v]);
    }
}

static void dot_keys(const uint8_t *keys, const int8_t *const query[ROWS],
                     const int32_t offset[ROWS], int count, int dim, int32_t out[ROWS][PANEL]) {
    (void)offset; /* signed keys have no excess */
    for (int r = 0; r < count; r++) {
        int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int i = 0; i < dim; i += 4) {
            const int8x16_t all = four_all(query[r] + i);
            for (int v = 0; v < 4; v++)
                sum[v] = vdotq_s32(sum[v], centred(keys + (size_t)i * PANEL + v * 16), all);
        }
        for (int v = 0; v < 4; v++) vst1q_s32(out[r] + v * 4, sum[v]);
    }
}

static void mix_values(const int8_t *values, const uint8_t *low, const uint8_t *high, size_t room,
                       int count, int blocks, int dim, int64_t *totals) {
    memset(totals, 0, sizeof *totals * (size_t)count * dim);
    for (int first = 0; first < blocks; first += MIX_BLOCKS) {
        const int last = blocks - first < MIX_BLOCKS ? blocks : first + MIX_BLOCKS;
        for (int r = 0; r < count; r++)
            for (int i = 0; i < dim; i += 4) {
                /* The low byte is unsigned: products with it less 128, and that much again. */
                int32x4_t lows = vdupq_n_s32(0), highs = lows, all = lows;
                for (int j = first; j < last; j++) {
                    const int8x16_t v = vld1q_s8(values + ((size_t)j * dim + i) * 4);
                    const int32_t l = four(low + r * room + j * 4) ^ (int32_t)0x80808080;
                    lows = vdotq_s32(lows, v, vreinterpretq_s8_s32(vdupq_n_s32(l)));
                    highs = vdotq_s32(highs, v, four_all(high + r * room + j * 4));
                    all = vdotq_s32(all, v, vdupq_n_s8(1));
                }
                int32_t a[4], h[4], o[4];
                vst1q_s32(a, lows);
                vst1q_s32(h, highs);
                vst1q_s32(o, all);
                for (int c = 0; c < 4; c++)
                    totals[r * dim + i + c] += a[c] + 256 * (int64_t)h[c] + 128 * (int64_t)o[c];
            }
    }
}
