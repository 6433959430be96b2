// Attention of rows that each look at their own cells: of fewer than a prompt has (prompt_attention.h). The cells of
// the K/V memory that a row attends to are taken in parts of a fixed length: what it gets depends on them alone, not
// on how many rows or threads there are, nor on where in the memory they lie, or what lies between.

#pragma once

#include "products/kernels.h"

#include "ggml.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kollama {

constexpr size_t  ATTENTION_PART = 128; // cells
constexpr int64_t ATTENTION_ROWS = 63;  // at most: more are a prompt's

constexpr uint16_t NOT_ATTENDED = 0xfc00; // in a mask: minus infinity

inline const uint16_t * row_of_mask(const ggml_tensor * mask, size_t row) {
    return reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask->data) + row * mask->nb[1]);
}

inline size_t n_attention_parts(size_t n_cells) {
    return (n_cells + ATTENTION_PART - 1) / ATTENTION_PART;
}

// What a row attends to, in the order of the cells.
struct attended {
    const uint32_t * cells;
    const float *    bias; // of the mask
    size_t           n;

    size_t n_parts() const { return n_attention_parts(n); }
};

constexpr size_t MORE_BIAS = 4; // as many are read at a time

// What rows attend to, by a mask of a graph: the layers share it.
class attended_cells {
  public:
    explicit attended_cells(const ggml_tensor * mask, size_t n_rows) : mask_(mask), rows_(n_rows) {}

    bool is_of(const ggml_tensor * mask, size_t n_rows) const { return mask == mask_ && n_rows == rows_.size(); }
    bool reserve(); // false: there is no memory
    void list(size_t i, size_t n); // by n threads, the i-th with i

    attended of(size_t row) const { return { rows_[row].cells.data(), rows_[row].bias.data(), rows_[row].n }; }

  private:
    struct row {
        std::vector<uint32_t> cells;
        std::vector<float>    bias;
        size_t                n = 0;
    };

    const ggml_tensor * mask_;
    std::vector<row>    rows_;
};

// What a row's heads, which share their keys and values, get of one part.
struct attention_part {
    const char *     keys;   // of 16-bit floats, n_key for each cell
    const char *     values; // likewise n_value
    size_t           key_stride, value_stride; // bytes from cell to cell
    size_t           n_key, n_value;           // multiples of 16
    size_t           n_cells;
    const uint32_t * cells;
    const float *    bias;
    const char *     queries;
    size_t           query_stride, n_heads; // bytes from head to head
    float            scale;
    bool             is_first; // nothing of it was asked for yet
    const attention_part * next; // to be asked for meanwhile, or null
    char *           out; // for each head: n_value weighted sums of values, the largest score, the sum of weights
    size_t           out_stride;
};

// A part of a row, for the heads of one group; out: for the first of them, whose parts follow one another, and out_stride
// bytes later those of the next.
attention_part part_of(const ggml_tensor * op, const attended & cells, size_t row, size_t group, size_t part, char * out, size_t out_stride);
size_t         part_bytes(const ggml_tensor * op); // of one head

// From the parts of a head of a row to what op gives.
void merge_head(const ggml_tensor * op, size_t row, size_t head, const char * parts, size_t n_parts);

// Whether op attends to a K/V memory that kernels read, with any number of rows.
bool is_attention(const ggml_tensor * op);

// One part, all heads of its group: product_kernels have it.
void attend_avx2(const attention_part & part);
void attend_avx512(const attention_part & part);

// What next(part) gives, until it is false: the memory of each part is asked for while the one before is computed.
template <class NEXT> void attend_in_turn(void (*attend)(const attention_part &), const NEXT & next) {
    attention_part two[2] = {};
    bool           goes_on = next(two[0]);
    two[0].is_first        = true;
    for (size_t i = 0; goes_on; i++) {
        attention_part & part = two[i % 2];
        goes_on               = next(two[(i + 1) % 2]);
        part.next             = goes_on ? &two[(i + 1) % 2] : nullptr;
        attend(part);
    }
}

size_t list_cells_avx2(const uint16_t * mask, size_t n, uint32_t * cells, float * bias); // how many
void merge_avx2(const char * parts, size_t stride, size_t n_parts, size_t n_value, float * out);

class attention {
  public:
    static bool takes(const ggml_tensor * op);

    attention(const product_kernels & kernels, const ggml_tensor * op, const attended_cells & cells);

    // Few rows are too few for all threads: their parts are shared out, and merged when all are there. Of
    // more, a thread takes whole groups of heads of some rows, and merges them as well.
    bool shares_parts() const;

    size_t bytes(size_t n_threads) const;
    void   use(char * parts) { parts_ = parts; }

    // Before each time that threads call them, the i-th of n with i. Where parts are shared, all come back from
    // attend before any merges.
    void begin() { next_.store(0, std::memory_order_relaxed); }
    void attend(size_t i, size_t n);
    void merge(size_t i, size_t n) const;

  private:
    bool take(size_t & i, size_t n, size_t n_left);
    void attend_parts(size_t n_threads);
    void attend_rows(char * parts);
    size_t heads_of_group() const { return n_heads_ / n_groups_; }
    char * at(size_t row, size_t head) const { return parts_ + (row * n_heads_ + head) * n_parts_ * out_bytes_; }

    void (*attend_)(const attention_part &);
    const ggml_tensor *    op_;
    const attended_cells * attended_;
    size_t              n_rows_, n_heads_, n_groups_, n_cells_, n_parts_, n_value_, out_bytes_;
    char *              parts_ = nullptr;
    std::atomic<size_t> next_{ 0 };
};

} // namespace kollama
