#include "products/few.h"

#include "products/product.h"

#include <algorithm>

namespace kollama {
namespace {

// Chunks for each thread: a thread that is held up leaves its share to the others.
constexpr size_t CHUNKS = 8;

constexpr size_t ROWS_AT_ONCE = 4; // of a kernel

bool overlap(const ggml_tensor * a, const ggml_tensor * b) {
    const auto * first  = static_cast<const char *>(a->data);
    const auto * second = static_cast<const char *>(b->data);
    return first < second + ggml_nbytes(b) && second < first + ggml_nbytes(a);
}

product_type type_of(const ggml_tensor * op) {
    return static_cast<product_type>(product_type_of(op->src[0]->type));
}

} // namespace

bool few_products::takes(const product_kernels & kernels, const ggml_tensor * op) {
    return is_product(op) && ggml_nrows(op->src[1]) <= FEW &&
           static_cast<size_t>(op->src[0]->ne[0]) >= kernels.group_blocks * BLOCK;
}

few_products::few_products(const product_kernels & kernels, const ggml_tensor * op) :
    kernels_(&kernels),
    type_(type_of(op)),
    n_columns_(static_cast<size_t>(ggml_nrows(op->src[1]))),
    n_blocks_(static_cast<size_t>(op->src[0]->ne[0]) / BLOCK),
    column_bytes_(kernels.n_groups(n_blocks_) * kernels.of[type_].group_bytes) {
    add(op);
}

bool few_products::shares_activations(const ggml_tensor * op) const {
    const product_type type = type_of(op);
    return op->src[1] == matrices_[0].op->src[1] && same_activations(type, type_);
}

void few_products::add(const ggml_tensor * op) {
    matrices_.push_back({ op, 0 });
    n_rows_ += static_cast<size_t>(op->src[0]->ne[1]);
}

bool few_products::writes_over(const ggml_tensor * op) const {
    return std::any_of(matrices_.begin(), matrices_.end(), [&](const matrix & m) { return overlap(m.op, op); });
}

void few_products::use(char * columns, int n_threads) {
    columns_           = columns;
    const size_t share = n_rows_ / (static_cast<size_t>(n_threads) * CHUNKS);
    chunk_rows_        = std::max<size_t>(1, share / ROWS_AT_ONCE) * ROWS_AT_ONCE;
    n_chunks_          = 0;
    for (matrix & m : matrices_) {
        m.first_chunk = n_chunks_;
        n_chunks_ += (static_cast<size_t>(m.op->src[0]->ne[1]) + chunk_rows_ - 1) / chunk_rows_;
    }
}

// Each thread lays the columns out for itself: that costs less than to wait for one that does it.
void few_products::run(size_t i) {
    size_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= n_chunks_) {
        return;
    }
    char *       columns = columns_ + i * columns_bytes();
    const auto * x       = static_cast<const float *>(matrices_[0].op->src[1]->data);
    for (size_t c = 0; c < n_columns_; c++) {
        kernels_->of[type_].lay_out(x + c * n_blocks_ * BLOCK, n_blocks_, columns + c * column_bytes_);
    }
    for (; chunk < n_chunks_; chunk = next_.fetch_add(1, std::memory_order_relaxed)) {
        const auto after = std::find_if(matrices_.begin(), matrices_.end(), [&](const matrix & m) { return m.first_chunk > chunk; });
        multiply(*(after - 1), chunk, columns);
    }
}

void few_products::multiply(const matrix & m, size_t chunk, const char * columns) const {
    const ggml_tensor * weights = m.op->src[0];
    const auto          n_rows  = static_cast<size_t>(weights->ne[1]);
    const size_t        first   = (chunk - m.first_chunk) * chunk_rows_;
    kernels_->of[type_of(m.op)].multiply_few(static_cast<const char *>(weights->data) + first * weights->nb[1], weights->nb[1],
                                             std::min(chunk_rows_, n_rows - first), n_blocks_, columns, column_bytes_, n_columns_,
                                             static_cast<float *>(m.op->data) + first, n_rows);
}

} // namespace kollama
