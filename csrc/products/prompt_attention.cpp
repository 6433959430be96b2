#include "products/prompt_attention.h"

#include "products/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <type_traits>

namespace kollama {
namespace {

constexpr size_t MOST_ROWS  = 64, LEAST_ROWS = 16; // of a run
constexpr size_t NUMBERS    = 16 * 1024; // of a run's queries, or of its sums: they stay near while all cells go by
constexpr size_t LEAST_RUN  = 4;         // rows; fewer are taken one by one
constexpr int    MOST_OTHER = 1;         // cells that a row of a run has and the row before has not, or the other way round

} // namespace

// ---- runs ----------------------------------------------------------------------------------------

row_runs::row_runs(const ggml_tensor * mask, size_t n_rows, size_t most) :
    mask_(mask), most_(most), n_words_((static_cast<size_t>(mask->ne[0]) + 63) / 64), lengths_(n_rows) {}

bool row_runs::reserve() {
    try {
        bits_.resize(lengths_.size() * n_words_);
        return true;
    } catch (const std::bad_alloc &) {
        return false;
    }
}

size_t most_rows_of_run(const ggml_tensor * op) {
    const ggml_tensor *q = op->src[0], *k = op->src[1];
    const auto         each = static_cast<size_t>(q->ne[2] / k->ne[2] * std::max(k->ne[0], op->src[2]->ne[0])); // numbers of a row
    return std::min(MOST_ROWS, std::max(LEAST_ROWS, NUMBERS / each / COLUMNS * COLUMNS));
}

// ---- attention -----------------------------------------------------------------------------------

bool prompt_attention::takes(const ggml_tensor * op) {
    return is_attention(op) && op->src[0]->ne[1] > ATTENTION_ROWS && op->src[1]->ne[0] % static_cast<int64_t>(BLOCK) == 0;
}

// A thread's memory, which all layers use one after another.
struct prompt_attention::work {
    // of a run
    float *    queries; // tiles of each head
    float *    sums;    // of values, for each column of each head
    float *    most;    // likewise the largest score
    float *    total;   // likewise the sum of weights
    uint32_t * cells;   // of a part
    uint16_t * mask;    // of each row, of a part
    float *    keys;    // of a part, in panels
    float *    values;
    float *    scores;  // of a tile, then weights
    float *    weights; // turned
    float *    more;    // sums of values
    // of a single row
    uint32_t * row_cells;
    float *    row_bias;
    char *     row_parts;

    size_t bytes = 0;

    work(const prompt_attention & a, char * memory) { // null: to see how much it is
        auto take = [&](auto *& to, size_t n) {
            to = memory ? reinterpret_cast<std::decay_t<decltype(to)>>(memory + bytes) : nullptr;
            bytes += whole(n * sizeof(*to), CACHE_LINE);
        };
        const size_t n_columns = a.n_heads_ * a.most_;
        take(queries, n_columns * a.n_key_);
        take(sums, n_columns * a.out_stride_);
        take(most, n_columns);
        take(total, n_columns);
        take(cells, PROMPT_PART);
        take(mask, a.most_ * PROMPT_PART);
        take(keys, whole(PROMPT_PART, a.kernel_.panel_rows) * a.n_key_);
        take(values, PROMPT_PART * a.out_stride_);
        take(scores, COLUMNS * PROMPT_PART);
        take(weights, COLUMNS * PROMPT_PART);
        take(more, COLUMNS * a.out_stride_);
        take(row_cells, a.n_cells_);
        take(row_bias, a.n_cells_ + MORE_BIAS);
        take(row_parts, a.n_heads_ * a.row_bytes());
    }
};

prompt_attention::prompt_attention(const product_kernels & kernels, const ggml_tensor * op, const row_runs & runs) :
    kernels_(kernels),
    kernel_(kernels.of[PRODUCT_F16]),
    op_(op),
    runs_(&runs),
    n_rows_(static_cast<size_t>(op->src[0]->ne[1])),
    n_heads_(static_cast<size_t>(op->src[0]->ne[2] / op->src[1]->ne[2])),
    n_groups_(static_cast<size_t>(op->src[1]->ne[2])),
    n_cells_(static_cast<size_t>(op->src[1]->ne[1])),
    n_key_(static_cast<size_t>(op->src[1]->ne[0])),
    n_value_(static_cast<size_t>(op->src[2]->ne[0])),
    most_(most_rows_of_run(op)),
    out_stride_(whole(n_value_, kernel_.panel_rows)) {
    std::memcpy(&scale_, op->op_params, sizeof(scale_));
}

size_t prompt_attention::bytes() const {
    return work(*this, nullptr).bytes;
}

size_t prompt_attention::row_bytes() const {
    return n_attention_parts(n_cells_) * part_bytes(op_);
}

#ifdef KOLLAMA_X86_KERNELS

// The next token of a sequence sees one cell more, and where there is a window it may see one less: two sequences
// that have no more of their own than that are not told apart, and need not be.
bool row_runs::goes_on(size_t row) const {
    const uint64_t *now = cells(row), *before = cells(row - 1);
    int             n_more = 0, n_less = 0;
    for (size_t i = 0; i < n_words_ && n_more <= MOST_OTHER && n_less <= MOST_OTHER; i++) {
        n_more += __builtin_popcountll(now[i] & ~before[i]);
        n_less += __builtin_popcountll(before[i] & ~now[i]);
    }
    return n_more <= MOST_OTHER && n_less <= MOST_OTHER;
}

void row_runs::find(size_t i, size_t n) {
    const size_t n_rows = lengths_.size();
    for (size_t start = i * most_; start < n_rows; start += n * most_) {
        const size_t end   = std::min(start + most_, n_rows);
        size_t       first = start;
        for (size_t row = start; row < end; row++) {
            attended_bits_avx2(row_of_mask(mask_, row), static_cast<size_t>(mask_->ne[0]), bits(row));
            if (row == start || !goes_on(row)) {
                first = row;
            } else {
                std::transform(bits(first), bits(first) + n_words_, bits(row), bits(first), [](uint64_t a, uint64_t b) { return a | b; });
            }
            lengths_[first] = row + 1 - first;
        }
    }
}

// The last rows of a prompt attend to the most cells: they come first, for all threads to end at about the same time.
void prompt_attention::attend(size_t i) {
    const work   w(*this, memory_ + i * bytes());
    const size_t n = (n_rows_ + most_ - 1) / most_;
    for (size_t one; (one = next_.fetch_add(1, std::memory_order_relaxed)) < n * n_groups_;) {
        const size_t start = (n - 1 - one / n_groups_) * most_, end = std::min(start + most_, n_rows_), group = one % n_groups_;
        for (size_t row = start; row < end;) {
            const size_t length = runs_->length(row), behind = row + length;
            if (length >= LEAST_RUN) {
                attend_run(row, length, group, w);
                row = behind;
            }
            for (; row < behind; row++) {
                attend_alone(row, group, w);
            }
        }
    }
}

void prompt_attention::attend_alone(size_t row, size_t group, const work & w) const {
    const attended cells{ w.row_cells, w.row_bias, list_cells_avx2(row_of_mask(op_->src[3], row), n_cells_, w.row_cells, w.row_bias) };
    size_t         n_done  = 0; // parts
    attend_in_turn(kernels_, [&](attention_part & next) {
        const bool is_left = n_done < cells.n_parts();
        if (is_left) {
            next = part_of(op_, cells, row, group, n_done++, w.row_parts, row_bytes());
        }
        return is_left;
    });
    for (size_t head = 0; head < n_heads_; head++) {
        merge_head(kernels_, op_, row, group * n_heads_ + head, w.row_parts + head * row_bytes(), n_done);
    }
}

// Columns of a head are the run's rows, in tiles.
void prompt_attention::attend_run(size_t first, size_t n, size_t group, const work & w) const {
    const ggml_tensor * q = op_->src[0];
    for (size_t head = 0; head < n_heads_; head++) {
        const char * queries = static_cast<const char *>(q->data) + first * q->nb[1] + (group * n_heads_ + head) * q->nb[2];
        for (size_t row = 0; row < n; row += COLUMNS) {
            kernel_.tile(reinterpret_cast<const float *>(queries + row * q->nb[1]), q->nb[1] / sizeof(float), std::min(COLUMNS, n - row),
                         n_key_ / BLOCK, reinterpret_cast<char *>(w.queries + (head * most_ + row) * n_key_));
        }
    }
    const size_t n_columns = n_heads_ * most_;
    std::fill_n(w.sums, n_columns * out_stride_, 0.0f);
    std::fill_n(w.most, n_columns, -INFINITY);
    std::fill_n(w.total, n_columns, 0.0f);

    const uint64_t * bits    = runs_->cells(first);
    size_t           n_cells = 0;
    for (size_t word = 0; word < runs_->n_words(); word++) {
        for (uint64_t left = bits[word]; left != 0; left &= left - 1) {
            w.cells[n_cells++] = static_cast<uint32_t>(64 * word + static_cast<size_t>(__builtin_ctzll(left)));
            if (n_cells == PROMPT_PART) {
                add_part(first, n, group, n_cells, w);
                n_cells = 0;
            }
        }
    }
    if (n_cells > 0) {
        add_part(first, n, group, n_cells, w);
    }
    for (size_t head = 0; head < n_heads_; head++) {
        char * out = static_cast<char *>(op_->data) + (group * n_heads_ + head) * op_->nb[1];
        for (size_t row = 0; row < n; row++) {
            const size_t column = head * most_ + row;
            divide_avx2(w.sums + column * out_stride_, w.total[column], n_value_, reinterpret_cast<float *>(out + (first + row) * op_->nb[2]));
        }
    }
}

// What a part of the run's cells adds to each of its columns.
void prompt_attention::add_part(size_t first, size_t n, size_t group, size_t n_cells, const work & w) const {
    const ggml_tensor *k = op_->src[1], *v = op_->src[2];
    const size_t       room = whole(n_cells, BLOCK);
    pack_keys_avx2(static_cast<const char *>(k->data) + group * k->nb[2], k->nb[1], w.cells, n_cells, n_key_, kernel_.panel_rows, w.keys);
    pack_values_avx2(static_cast<const char *>(v->data) + group * v->nb[2], v->nb[1], w.cells, n_cells, room, n_value_, kernel_.panel_rows,
                     w.values);
    for (size_t tile = 0; tile < n; tile += COLUMNS) {
        const size_t n_columns = std::min(COLUMNS, n - tile);
        bool         any       = false;
        for (size_t row = tile; row < tile + n_columns; row++) {
            any |= gather_mask_avx2(row_of_mask(op_->src[3], first + row), w.cells, n_cells, room, w.mask + row * PROMPT_PART);
        }
        for (size_t head = 0; any && head < n_heads_; head++) {
            add_tile(head * most_ + tile, w.mask + tile * PROMPT_PART, n_columns, n_cells, w);
        }
    }
}

// Columns of one head, from `first` on.
void prompt_attention::add_tile(size_t first, const uint16_t * mask, size_t n_columns, size_t n_cells, const work & w) const {
    const size_t n_each = kernel_.panel_rows, n_blocks = whole(n_cells, BLOCK) / BLOCK;
    const auto   chars  = [](const float * p) { return reinterpret_cast<const char *>(p); };
    for (size_t cell = 0; cell < n_cells; cell += n_each) {
        kernel_.multiply(chars(w.keys + cell * n_key_), chars(w.queries + first * n_key_), n_key_ / BLOCK, n_each, n_columns, w.scores + cell,
                         PROMPT_PART);
    }
    float factors[COLUMNS];
    for (size_t c = 0; c < n_columns; c++) {
        factors[c] = weigh_scores_avx2(w.scores + c * PROMPT_PART, mask + c * PROMPT_PART, n_blocks * BLOCK, scale_, w.most[first + c],
                                       w.total[first + c]);
    }
    kernel_.tile(w.scores, PROMPT_PART, n_columns, n_blocks, reinterpret_cast<char *>(w.weights));
    for (size_t d = 0; d < n_value_; d += n_each) {
        kernel_.multiply(chars(w.values + d * n_blocks * BLOCK), chars(w.weights), n_blocks, n_each, n_columns, w.more + d, out_stride_);
    }
    for (size_t c = 0; c < n_columns; c++) {
        add_sums_avx2(w.sums + (first + c) * out_stride_, factors[c], w.more + c * out_stride_, out_stride_);
    }
}

#else

void row_runs::find(size_t, size_t) {}
void prompt_attention::attend(size_t) {}

#endif

} // namespace kollama
