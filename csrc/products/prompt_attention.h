// Attention of many rows, as a prompt has them. Rows that come one after another in a sequence attend to nearly the
// same cells of the K/V memory: a run of them takes those once, and its scores and sums are matrix products, by the
// kernels for 16-bit weights (kernels.h). Cells that no row of a run attends to are never read.

#pragma once

#include "products/attention.h"
#include "products/kernels.h"

namespace kollama {

constexpr size_t PROMPT_PART = 96; // cells at a time: whole panels and whole blocks of every instruction set

// Which rows are runs, by a mask of a graph: the layers share it. None is longer than `most` rows, and each `most`
// rows begin anew.
class row_runs {
  public:
    row_runs(const ggml_tensor * mask, size_t n_rows, size_t most);

    bool is_of(const ggml_tensor * mask, size_t n_rows, size_t most) const { return mask == mask_ && n_rows == lengths_.size() && most == most_; }
    bool reserve(); // false: there is no memory
    void find(size_t i, size_t n); // by n threads, the i-th with i

    size_t           length(size_t first) const { return lengths_[first]; } // of the run that begins there
    const uint64_t * cells(size_t first) const { return bits_.data() + first * n_words_; } // a bit for each that it attends to
    size_t           n_words() const { return n_words_; }

  private:
    uint64_t * bits(size_t row) { return bits_.data() + row * n_words_; }
    bool       goes_on(size_t row) const; // whether it may be in one run with the row before

    const ggml_tensor *   mask_;
    size_t                most_, n_words_;
    std::vector<size_t>   lengths_;
    std::vector<uint64_t> bits_; // of each row; of a run's first row those of all
};

size_t most_rows_of_run(const ggml_tensor * op);

class prompt_attention {
  public:
    static bool takes(const ggml_tensor * op);

    prompt_attention(const product_kernels & kernels, const ggml_tensor * op, const row_runs & runs);

    size_t bytes() const; // that each thread needs
    void   use(char * memory) { memory_ = memory; }

    // begin() before each time that threads call attend(), the i-th with i.
    void begin() { next_.store(0, std::memory_order_relaxed); }
    void attend(size_t i);

  private:
    struct work;

    void             attend_run(size_t first, size_t n, size_t group, const work & w) const;
    void             attend_alone(size_t row, size_t group, const work & w) const;
    void             add_part(size_t first, size_t n, size_t group, size_t n_cells, const work & w) const;
    void             add_tile(size_t first, const uint16_t * mask, size_t n_columns, size_t n_cells, const work & w) const;
    size_t           row_bytes() const; // of a single row's parts, for one head

    const product_kernels &          kernels_;
    const product_kernels::of_type & kernel_;
    const ggml_tensor *              op_;
    const row_runs *                 runs_;
    size_t                           n_rows_, n_heads_, n_groups_; // heads of one group
    size_t                           n_cells_, n_key_, n_value_;
    size_t                           most_;       // rows of a run
    size_t                           out_stride_; // from column to column of sums
    float                            scale_;
    char *                           memory_ = nullptr;
    std::atomic<size_t>              next_{ 0 };
};

// ---- its inner loops -----------------------------------------------------------------------------

// A bit for each cell that is attended to.
void attended_bits_avx2(const uint16_t * mask, size_t n, uint64_t * bits);

// Keys of n_cells, n_key numbers each, into panels of n_rows cells, as kernels have those of 16-bit weights.
void pack_keys_avx2(const char * keys, size_t stride, const uint32_t * cells, size_t n_cells, size_t n_key, size_t n_rows, float * panels);

// Values likewise, into panels of n_rows numbers, each with the cells one after another, `room` of them; what is behind the last is 0.
void pack_values_avx2(const char * values, size_t stride, const uint32_t * cells, size_t n_cells, size_t room, size_t n_value, size_t n_rows,
                      float * panels);

// Of one row: for `room` cells, those behind the n-th not attended to. Whether any is.
bool gather_mask_avx2(const uint16_t * mask, const uint32_t * cells, size_t n, size_t room, uint16_t * out);

// Scores of n cells (a multiple of 8) to weights, relative to the largest of them and of `most`, which is what was the
// largest so far; to `sum` they are added. What the sums before are to be multiplied with.
float weigh_scores_avx2(float * scores, const uint16_t * mask, size_t n, float scale, float & most, float & sum);

// sums * factor + more
void add_sums_avx2(float * sums, float factor, const float * more, size_t n);

void divide_avx2(const float * sums, float by, size_t n, float * out);

} // namespace kollama
