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
    size_t cells_of_part(size_t part) const {
        const size_t left = n - part * ATTENTION_PART;
        return left < ATTENTION_PART ? left : ATTENTION_PART;
    }
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

    // Of rows that come one after another, how many attend to the same in this part; at least 1 of at most n.
    size_t n_alike(size_t row, size_t part, size_t n) const;

  private:
    struct row {
        std::vector<uint32_t> cells;
        std::vector<float>    bias;
        size_t                n = 0, n_shared = 0; // that many are the first of the row before, too
    };

    const ggml_tensor * mask_;
    std::vector<row>    rows_;
};

// What heads that share their keys and values get of one part: those of rows that attend to the same of it.
struct attention_part {
    const char *     keys;   // of 16-bit floats, n_key for each cell
    const char *     values; // likewise n_value
    size_t           key_stride, value_stride; // bytes from cell to cell
    size_t           n_key, n_value;           // multiples of 16
    size_t           n_cells;
    const uint32_t * cells;
    const float *    bias;
    const char *     queries;
    size_t           n_rows, n_heads;         // heads of each row
    size_t           query_row, query_stride; // bytes from row to row, and from head to head
    float            scale;
    bool             is_first; // nothing of it was asked for yet
    const attention_part * next; // to be asked for meanwhile, or null
    char *           out; // for each head: n_value weighted sums of values, the largest score, the sum of weights
    size_t           out_row, out_stride;
};

// A part of one row, for the heads of one group; out: for the first of them, whose parts follow one another, and out_stride
// bytes later those of the next.
attention_part part_of(const ggml_tensor * op, const attended & cells, size_t row, size_t group, size_t part, char * out, size_t out_stride);
size_t         part_bytes(const ggml_tensor * op); // of one head

// From the parts of a head of a row to what op gives.
void merge_head(const product_kernels & kernels, const ggml_tensor * op, size_t row, size_t head, char * parts, size_t n_parts);

// Whether op attends to a K/V memory that kernels read, with any number of rows.
bool is_attention(const ggml_tensor * op);

// What product_kernels have.
void attend_avx2(const attention_part & part);
void attend_avx512(const attention_part & part);
void merge_avx2(char * parts, size_t stride, size_t n_parts, size_t n_value, float * out);
void merge_avx512(char * parts, size_t stride, size_t n_parts, size_t n_value, float * out);

// What next(part) gives, until it is false: the memory of each part is asked for while the one before is computed.
template <class NEXT> void attend_in_turn(const product_kernels & kernels, const NEXT & next) {
    attention_part two[2] = {};
    bool           goes_on = next(two[0]);
    two[0].is_first        = true;
    for (size_t i = 0; goes_on; i++) {
        attention_part & part = two[i % 2];
        goes_on               = next(two[(i + 1) % 2]);
        part.next             = goes_on ? &two[(i + 1) % 2] : nullptr;
        kernels.attend(part);
    }
}

size_t list_cells_avx2(const uint16_t * mask, size_t n, uint32_t * cells, float * bias); // how many

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

    const product_kernels * kernels_;
    const ggml_tensor *    op_;
    const attended_cells * attended_;
    size_t              n_rows_, n_heads_, n_groups_, n_cells_, n_parts_, n_value_, out_bytes_;
    char *              parts_ = nullptr;
    std::atomic<size_t> next_{ 0 };
};

} // namespace kollama
