// Matrix products of quantized and 16-bit weights: the inner loops, compiled once for each instruction set.
//
// A panel holds panel_rows rows of weights side by side, unpacked to bytes: of each block of 32, first
// bytes 0 to 3 of every row, then bytes 4 to 7, and so on. A tile holds COLUMNS columns of activations,
// as 8-bit numbers: of each block of 32 those of one column after another. Then one instruction takes four bytes of one column to all rows at once,
// no sum over the lanes of a register is ever needed, and unpacking is paid once for all columns.
//
// Panels and tiles of 16-bit weights hold 32-bit floats: of each column of weights that of every row.
//
// With few columns panels are not worth their memory: rows are read as they lie in the file, and each block meets
// all columns while it is in registers, or in the nearest cache. For quantized weights the sums are those of
// panels, bit for bit, where there are panels: Q6_K has none. For all, what a column gets does not depend on how
// many there are, up to COLUMNS, nor on which thread computes it.

#pragma once

#include <cstddef>
#include <cstdint>

namespace kollama {

constexpr size_t BLOCK   = 32; // weights that share a scale, in every type here but Q6_K; what is counted in all of them
constexpr size_t COLUMNS = 8;  // of a tile

enum product_type { PRODUCT_Q4_0, PRODUCT_Q4_1, PRODUCT_Q5_0, PRODUCT_Q5_1, PRODUCT_Q8_0, PRODUCT_F16, PRODUCT_Q6_K, N_PRODUCT_TYPES };

// Whether a block has a minimum beside its scale.
static constexpr bool has_minimum(product_type type) {
    return type == PRODUCT_Q4_1 || type == PRODUCT_Q5_1;
}

// What kernels add to a number for it not to be negative.
static constexpr int32_t offset_of(product_type type) {
    return type == PRODUCT_Q4_0 ? 8 : type == PRODUCT_Q5_0 ? 16 : type == PRODUCT_Q8_0 ? 128 : type == PRODUCT_Q6_K ? 32 : 0;
}

// Whether tiles and columns for one type are those for the other.
static constexpr bool same_activations(product_type a, product_type b) {
    return has_minimum(a) == has_minimum(b) && offset_of(a) == offset_of(b); // none of the others is as F16, or as Q6_K
}

struct attention_part;

struct product_kernels {
    struct of_type { // what is null is left to ggml
        size_t panel_rows;
        size_t few_rows;           // that multiply_few takes at a time
        size_t panel_block_bytes;  // of a panel, for each block of its rows
        size_t column_block_bytes; // of a tile, for each block of each of its columns

        // n_columns (1 to COLUMNS) of n_blocks * BLOCK floats, stride floats apart, into a tile of COLUMNS.
        void (*tile)(const float * x, size_t stride, size_t n_columns, size_t n_blocks, char * out);
        // n_rows (1 to panel_rows) of n_blocks blocks, row_bytes apart.
        void (*pack)(const char * rows, size_t row_bytes, size_t n_rows, size_t n_blocks, char * panel);
        // out[c * stride + r] of n_columns columns and n_rows rows.
        void (*multiply)(const char * panel, const char * tile, size_t n_blocks, size_t n_rows, size_t n_columns, float * out,
                         size_t stride);
        // As tile, into one of n_columns.
        void (*narrow_tile)(const float * x, size_t stride, size_t n_columns, size_t n_blocks, char * out);
        // As multiply, of any number of rows as they lie, row_bytes apart, and a tile of n_columns.
        void (*multiply_few)(const char * rows, size_t row_bytes, size_t n_rows, size_t n_blocks, const char * tile, size_t n_columns,
                             float * out, size_t stride);
    } of[N_PRODUCT_TYPES];

    // Attention (attention.h): of a part; and from the parts of a head, which are overwritten, what the head gives.
    void (*attend)(const attention_part & part);
    void (*merge)(char * parts, size_t stride, size_t n_parts, size_t n_value, float * out);
};

// Those of this machine's CPU, or null.
const product_kernels * choose_product_kernels();

extern const product_kernels product_kernels_avx2;
extern const product_kernels product_kernels_avx512;

} // namespace kollama
