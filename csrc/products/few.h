// Products of few columns, of one or more matrices with the same activations, as one operation.

#pragma once

#include "products/kernels.h"

#include "ggml.h"

#include <atomic>
#include <cstddef>
#include <vector>

namespace kollama {

class few_products {
  public:
    // Whether op is a product that kernels take so.
    static bool takes(const ggml_tensor * op);

    few_products(const product_kernels & kernels, const ggml_tensor * op);

    bool shares_activations(const ggml_tensor * op) const; // op: one that takes() takes
    void add(const ggml_tensor * op);
    bool writes_over(const ggml_tensor * op) const; // what the result of op is written to

    size_t tile_bytes() const { return tile_bytes_; } // for each thread
    void   use(char * tiles, int n_threads);

    // Before each time that threads call run(), which all of them do, the i-th with i.
    void begin() { next_.store(0, std::memory_order_relaxed); }
    void run(size_t i);

  private:
    struct matrix {
        const ggml_tensor * op;
        size_t              first_chunk;
    };

    void multiply(const matrix & m, size_t chunk, const char * tile) const;

    const product_kernels * kernels_;
    std::vector<matrix>     matrices_;
    product_type            type_; // of the first; the others' tiles are alike
    size_t                  n_columns_, n_blocks_, tile_bytes_;
    size_t                  n_rows_ = 0, chunk_rows_ = 0, n_chunks_ = 0;
    char *                  tiles_ = nullptr;
    std::atomic<size_t>     next_{ 0 };
};

} // namespace kollama
