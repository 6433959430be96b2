// Matrix products of quantized weights: the inner loops, compiled once for each instruction set.
//
// A panel holds panel_rows rows of weights side by side, unpacked to bytes: of each block of 32, first
// bytes 0 to 3 of every row, then bytes 4 to 7, and so on. A tile holds COLUMNS columns of activations,
// as 8-bit numbers, likewise. Then one instruction takes four bytes of one column to all rows at once,
// no sum over the lanes of a register is ever needed, and unpacking is paid once for all columns.

#pragma once

#include <cstddef>
#include <cstdint>

namespace kollama {

constexpr size_t BLOCK   = 32; // weights that share a scale, in every type here
constexpr size_t COLUMNS = 8;  // of a tile

enum product_type { PRODUCT_Q4_1, PRODUCT_Q5_0, PRODUCT_Q5_1, PRODUCT_Q8_0, N_PRODUCT_TYPES };

// Whether a block has a minimum beside its scale.
static constexpr bool has_minimum(product_type type) {
    return type == PRODUCT_Q4_1 || type == PRODUCT_Q5_1;
}

// A block of each column of a tile. Numbers and scales are rounded as ggml rounds its block_q8_0 and
// block_q8_1: the results differ from its own by the order of float sums alone.
struct activation_block {
    int8_t q[BLOCK / 4][COLUMNS][4];
    float  scale[COLUMNS];
    union {
        float   scaled_sum[COLUMNS]; // for types with a minimum: scale * sum(q), rounded to 16 bits
        int32_t sum[COLUMNS];        // for the others: sum(q)
    };
};

struct product_kernels {
    size_t panel_rows;
    size_t panel_block_bytes; // of a panel, for each block of its rows

    // n_columns (1 to COLUMNS) of n_blocks * BLOCK floats, stride floats apart, into n_blocks blocks.
    void (*quantise)(const float * x, size_t stride, size_t n_columns, size_t n_blocks, bool minimum, activation_block * out);

    struct of_type {
        // n_rows (1 to panel_rows) of n_blocks blocks, row_bytes apart.
        void (*pack)(const char * rows, size_t row_bytes, size_t n_rows, size_t n_blocks, char * panel);
        // out[c * stride + r] of n_columns columns and n_rows rows.
        void (*multiply)(const char * panel, const activation_block * tile, size_t n_blocks, size_t n_rows, size_t n_columns,
                         float * out, size_t stride);
    } of[N_PRODUCT_TYPES]; // null where ggml's own are better
};

// Those of this machine's CPU, or null.
const product_kernels * choose_product_kernels();

extern const product_kernels product_kernels_avx2;
extern const product_kernels product_kernels_avx512;

} // namespace kollama
