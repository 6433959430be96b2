#include "products/few.h"

#include "products/product.h"

#include <algorithm>

namespace kollama {
namespace {

// Chunks for each thread: a thread that is held up leaves its share to the others.
constexpr size_t CHUNKS = 8;

// Threads do not write to the same cache line.
size_t whole_lines(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

bool overlap(const ggml_tensor * a, const ggml_tensor * b) {
    const auto * first  = static_cast<const char *>(a->data);
    const auto * second = static_cast<const char *>(b->data);
    return first < second + ggml_nbytes(b) && second < first + ggml_nbytes(a);
}

product_type type_of(const ggml_tensor * op) {
    return static_cast<product_type>(product_type_of(op->src[0]->type));
}

} // namespace

bool few_products::takes(const ggml_tensor * op) {
    return is_product(op) && ggml_nrows(op->src[1]) <= FEW;
}

few_products::few_products(const product_kernels & kernels, const ggml_tensor * op) :
    kernels_(&kernels),
    type_(type_of(op)),
    n_columns_(static_cast<size_t>(ggml_nrows(op->src[1]))),
    n_blocks_(static_cast<size_t>(op->src[0]->ne[0]) / BLOCK),
    tile_bytes_(whole_lines(n_columns_ * n_blocks_ * kernels.of[type_].column_block_bytes)) {
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

void few_products::use(char * tiles, int n_threads) {
    tiles_                = tiles;
    const size_t share    = n_rows_ / (static_cast<size_t>(n_threads) * CHUNKS);
    const size_t few_rows = kernels_->of[type_].few_rows;
    chunk_rows_           = std::max<size_t>(1, share / few_rows) * few_rows;
    n_chunks_          = 0;
    for (matrix & m : matrices_) {
        m.first_chunk = n_chunks_;
        n_chunks_ += (static_cast<size_t>(m.op->src[0]->ne[1]) + chunk_rows_ - 1) / chunk_rows_;
    }
}

// Each thread makes the tile for itself: that costs less than to wait for one that does it.
void few_products::run(size_t i) {
    size_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= n_chunks_) {
        return;
    }
    char *       tile = tiles_ + i * tile_bytes_;
    const auto * x    = static_cast<const float *>(matrices_[0].op->src[1]->data);
    kernels_->of[type_].narrow_tile(x, n_blocks_ * BLOCK, n_columns_, n_blocks_, tile);
    for (; chunk < n_chunks_; chunk = next_.fetch_add(1, std::memory_order_relaxed)) {
        const auto after = std::find_if(matrices_.begin(), matrices_.end(), [&](const matrix & m) { return m.first_chunk > chunk; });
        multiply(*(after - 1), chunk, tile);
    }
}

void few_products::multiply(const matrix & m, size_t chunk, const char * tile) const {
    const ggml_tensor * weights = m.op->src[0];
    const auto          n_rows  = static_cast<size_t>(weights->ne[1]);
    const size_t        first   = (chunk - m.first_chunk) * chunk_rows_;
    kernels_->of[type_of(m.op)].multiply_few(static_cast<const char *>(weights->data) + first * weights->nb[1], weights->nb[1],
                                             std::min(chunk_rows_, n_rows - first), n_blocks_, tile, n_columns_,
                                             static_cast<float *>(m.op->data) + first, n_rows);
}

} // namespace kollama
