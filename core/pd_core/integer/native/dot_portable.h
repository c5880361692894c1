/* Plain C: the reference of the other three. */
#define PD_ISA "portable"
#define PD_FUNCTIONS pd_portable

/* A group of a weight's panel, spread out, times a group of a row. Each loop is over neighbours in
   memory, and its products are of 16 bits: compilers make vectors of that. */
static inline void add_group(const pd_block *b, int16_t codes[PANEL][GROUP], int row, int group,
                             const int32_t factors[PANEL], int32_t totals[PANEL]) {
    const int8_t *x = b->rows + row * b->row_codes + group * GROUP;
    const int32_t shift = 1 << b->shifts[row * b->row_groups + group];
    int16_t elements[GROUP];
    for (int i = 0; i < GROUP; i++) elements[i] = x[i];
    if (b->high)
        for (int i = 0; i < GROUP; i++) elements[i] += x[i + b->high] * (1 << HIGH);
    for (int c = 0; c < PANEL; c++) {
        int32_t sum = 0;
        for (int i = 0; i < GROUP; i++) sum += codes[c][i] * elements[i];
        totals[c] += sum * shift * factors[c];
    }
}

static void dot_bytes(const pd_block *b, int32_t out[ROWS][PANEL]) {
    int32_t ones[PANEL];
    int16_t codes[PANEL][GROUP];
    for (int c = 0; c < PANEL; c++) ones[c] = 1;
    memset(out, 0, b->num_rows * sizeof *out);
    for (int g = 0; g < b->groups; g++) {
        const uint8_t *from = b->codes + (size_t)g * GROUP * PANEL;
        for (int c = 0; c < PANEL; c++)
            for (int i = 0; i < GROUP; i += 4)
                for (int j = 0; j < 4; j++) codes[c][i + j] = from[(i / 4 * PANEL + c) * 4 + j] - 128;
        for (int r = 0; r < b->num_rows; r++) add_group(b, codes, r, g, ones, out[r]);
    }
}

static void dot_nibbles(const pd_block *b, int32_t out[ROWS][PANEL]) {
    int32_t steps[PANEL];
    int16_t codes[PANEL][GROUP];
    memset(out, 0, b->num_rows * sizeof *out);
    for (int g = 0; g < b->groups; g++) {
        const uint8_t *from = b->codes + (size_t)g * GROUP * PANEL / 2;
        for (int c = 0; c < PANEL; c++) {
            steps[c] = b->steps[(size_t)g * PANEL + c];
            for (int i = 0; i < GROUP / 2; i++) {
                const int pair = from[i / 4 * 64 + c * 4 + i % 4];
                codes[c][i] = (pair & 15) - 8;
                codes[c][i + GROUP / 2] = (pair >> 4) - 8;
            }
        }
        for (int r = 0; r < b->num_rows; r++) add_group(b, codes, r, g, steps, out[r]);
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
