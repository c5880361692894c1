/* Plain C: the reference of the other three. */
#define PD_ISA "portable"
#define PD_FUNCTIONS pd_portable

/* The integer at an element of a row. */
static inline int32_t element(const pd_block *b, const int8_t *x) {
    return b->high ? x[0] + x[b->high] * (1 << HIGH) : x[0];
}

static void dot_bytes(const pd_block *b, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < b->num_rows; r++)
        for (int c = 0; c < PANEL; c++) {
            const uint8_t *codes = b->codes + c * 4;
            int32_t total = 0;
            for (int g = 0; g < b->groups; g++) {
                const int8_t *x = b->rows + r * b->row_codes + g * GROUP;
                int32_t sum = 0;
                for (int i = 0; i < GROUP; i++)
                    sum += ((int32_t)codes[(size_t)(g * GROUP + i) / 4 * 64 + i % 4] - 128) *
                           element(b, x + i);
                total += sum * (1 << b->shifts[r * b->row_groups + g]);
            }
            out[r][c] = total;
        }
}

static void dot_nibbles(const pd_block *b, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < b->num_rows; r++)
        for (int c = 0; c < PANEL; c++) {
            const uint8_t *codes = b->codes + c * 4;
            const uint8_t *steps = b->steps + c;
            int32_t total = 0;
            for (int g = 0; g < b->groups; g++) {
                const int8_t *x = b->rows + r * b->row_codes + g * GROUP;
                int32_t sum = 0;
                for (int i = 0; i < GROUP / 2; i++) {
                    const int32_t pair = codes[(size_t)g * 256 + i / 4 * 64 + i % 4];
                    sum += ((pair & 15) - 8) * element(b, x + i) +
                           ((pair >> 4) - 8) * element(b, x + i + GROUP / 2);
                }
                total += sum * (1 << b->shifts[r * b->row_groups + g]) * steps[(size_t)g * PANEL];
            }
            out[r][c] = total;
        }
}

static void dot_keys(const uint8_t *keys, const int8_t *const query[ROWS],
                     const int32_t offset[ROWS], int count, int dim, int32_t out[ROWS][PANEL]) {
    for (int r = 0; r < count; r++)
        for (int j = 0; j < PANEL; j++) {
            int32_t sum = -offset[r];
            for (int i = 0; i < dim; i++) sum += keys[(i / 4 * PANEL + j) * 4 + i % 4] * query[r][i];
            out[r][j] = sum;
        }
}

static void mix_values(const int8_t *values, const uint8_t *low, const uint8_t *high, size_t room,
                       int count, int blocks, int dim, int64_t *totals) {
    for (int r = 0; r < count; r++)
        for (int i = 0; i < dim; i++) {
            int64_t total = 0;
            for (int j = 0; j < 4 * blocks; j++)
                total += (low[r * room + j] + 256 * high[r * room + j]) *
                         values[((size_t)(j / 4) * dim + i) * 4 + j % 4];
            totals[r * dim + i] = total;
        }
}
