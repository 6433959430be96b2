// Products of few columns, of one or more matrices with the same activations, as one operation.

#pragma once

#include "products/kernels.h"

#include "ggml.h"

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace kollama {

class few_products {
  public:
    // Whether op is a product that kernels take so.
    static bool takes(const product_kernels & kernels, const ggml_tensor * op);

    few_products(const product_kernels & kernels, const ggml_tensor * op);

    bool shares_activations(const ggml_tensor * op) const; // op: one that takes() takes
    void add(const ggml_tensor * op);
    bool writes_over(const ggml_tensor * op) const; // what the result of op is written to

    size_t tile_bytes() const { return tile_bytes_; } // for each thread
    void   use(char * tiles, int n_threads);

    // Before each time that threads call run(), which all of them do, the i-th with i.
    void begin();
    void run(size_t i);

  private:
    struct matrix {
        const ggml_tensor * op;
        size_t              first_group; // of few_rows rows each, counted over all matrices
    };

    // Groups that one thread takes in their order, since what it has asked the memory for goes on into the next.
    // The others take what is left of them when they have done their own.
    struct alignas(64) share { // threads do not write to the same cache line
        std::atomic<size_t> next;
        size_t              first, end;
    };

    size_t group_bytes() const;
    bool take(share & from, size_t & first, size_t & end) const;
    void multiply(size_t first, size_t end, const char * tile) const; // of groups

    const product_kernels *  kernels_;
    std::vector<matrix>      matrices_;
    product_type             type_; // of the first; the others' tiles are alike
    size_t                   n_columns_, n_blocks_, tile_bytes_, group_rows_;
    size_t                   n_groups_ = 0, n_shares_ = 0, least_ = 0; // least_: groups that are taken at once
    std::unique_ptr<share[]> shares_;
    char *                   tiles_ = nullptr;
};

} // namespace kollama
