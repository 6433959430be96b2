// Attention of few rows, over parts of the K/V memory of a fixed length: what a row gets depends on what it
// attends to alone, not on how many rows or threads there are, nor on how much memory lies behind it.

#pragma once

#include "ggml.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kollama {

constexpr size_t ATTENTION_PART = 128; // cells

// What a row's heads, which share their keys and values, get of one part.
struct attention_part {
    const char *     keys;   // of 16-bit floats, n_key for each cell
    const char *     values; // likewise n_value
    size_t           key_stride, value_stride; // bytes from cell to cell
    size_t           n_key, n_value;           // multiples of 16
    size_t           n_cells;
    const uint16_t * mask; // 16-bit floats, n_cells of them, or null
    const char *     queries;
    size_t           query_stride, n_heads; // bytes from head to head
    float            scale;
    char *           out; // for each head: n_value weighted sums of values, the largest score, the sum of weights
    size_t           out_stride;
};

void attend_avx2(const attention_part & part);
void merge_avx2(const char * parts, size_t stride, size_t n_parts, size_t n_value, float * out);

class attention {
  public:
    static bool takes(const ggml_tensor * op);

    explicit attention(const ggml_tensor * op);

    size_t bytes() const;
    void   use(char * parts) { parts_ = parts; }

    // Before each time that threads call both, the i-th of n with i; all come back from attend before any merges.
    void begin() { next_.store(0, std::memory_order_relaxed); }
    void attend();
    void merge(size_t i, size_t n) const;

  private:
    char * at(size_t row, size_t head, size_t part) const;

    const ggml_tensor * op_;
    size_t              n_rows_, n_heads_, n_groups_, n_cells_, n_parts_, n_value_, out_bytes_;
    char *              parts_ = nullptr;
    std::atomic<size_t> next_{ 0 };
};

} // namespace kollama
