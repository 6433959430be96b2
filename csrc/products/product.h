// One matrix product, on as many threads as come.

#pragma once

#include "products/kernels.h"

#include "ggml.h"

#include <atomic>
#include <cstdlib>
#include <memory>

namespace kollama {

constexpr size_t CACHE_LINE = 64; // threads do not write to the same one

inline size_t whole(size_t n, size_t of) { // up to a multiple
    return (n + of - 1) / of * of;
}

// Memory that is only written before it is read, and begins at a cache line.
class scratch {
  public:
    ~scratch() { std::free(memory_); }
    scratch()                            = default;
    scratch(const scratch &)             = delete;
    scratch & operator=(const scratch &) = delete;

    bool  reserve(size_t size); // false: there is no more; what was in it is lost
    char * data() const { return data_; }

  private:
    void * memory_ = nullptr;
    char * data_   = nullptr;
    size_t size_   = 0;
};

// Columns that are multiplied with rows as they lie. With more it pays to unpack rows into panels: see
// benchmarks/RESULTS.md.
constexpr int64_t FEW = COLUMNS;

// N_PRODUCT_TYPES where no kernel is for it.
int product_type_of(ggml_type type);

// Whether op is a product of weights of such a type, laid out as kernels read it.
bool is_product(const ggml_tensor * op);

// Whether they have memory in common, as far as that is known.
bool overlap(const ggml_tensor * a, const ggml_tensor * b);

class product {
  public:
    // Whether op is a product that kernels take.
    static bool takes(const product_kernels & kernels, const ggml_tensor * op);

    product(const product_kernels & kernels, const ggml_tensor * op, int n_threads);

    bool   same_activations(const product & other) const; // as other's tiles are
    size_t tiles_bytes() const { return n_tiles_ * tile_bytes(); }
    size_t panels_bytes() const { return n_threads_ * panels_in_chunk_ * panel_bytes(); }
    void   use(char * tiles, char * panels);

    void begin() { next_panel_.store(0, std::memory_order_relaxed); } // before each time that they are called

    // Each is called by n threads at a time, the i-th of them with i; all of them come back from the first
    // before any calls the second.
    void tile(size_t i, size_t n) const;
    void multiply(size_t i);

  private:
    size_t panel_bytes() const { return n_blocks_ * kernel_.panel_block_bytes; }
    size_t tile_bytes() const { return COLUMNS * n_blocks_ * kernel_.column_block_bytes; }

    const ggml_tensor *              op_;
    product_type                     type_;
    const product_kernels::of_type & kernel_;
    size_t                           n_rows_, n_columns_, n_blocks_, n_tiles_, n_threads_;
    size_t                           n_panels_, panels_in_chunk_; // a thread takes as many at a time
    char *                           tiles_  = nullptr;
    char *                           panels_ = nullptr;
    std::atomic<size_t>              next_panel_{ 0 };
};

} // namespace kollama
