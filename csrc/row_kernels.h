// The passes over whole blocks of a row. They are compiled once for each instruction set, in
// row_base.cpp, row_avx2.cpp and row_avx512.cpp, and row.cpp chooses at run time.

#pragma once

#include <cstddef>

namespace kollama {

constexpr size_t ROW_BLOCK = 64; // floats whose maximum stands for them

struct row_kernels {
    // Maxima of n_blocks blocks into block_max; returns whether a NaN was seen.
    bool (*block_maxima)(const float * logits, size_t n_blocks, float * block_max);

    // sum(exp(logits - peak)) over n_blocks blocks, none of whose logits is above peak.
    double (*sum_exp)(const float * logits, size_t n_blocks, float peak);
};

extern const row_kernels row_kernels_base;
extern const row_kernels row_kernels_avx2;
extern const row_kernels row_kernels_avx512;

} // namespace kollama
