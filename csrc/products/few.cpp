#include "products/few.h"

#include "products/product.h"

#include <algorithm>

namespace kollama {
namespace {

// A thread takes this part of what is left of a share at a time, and in the end this part of a share, but not more than
// so many bytes: one that is held up leaves the most to the others, and all end at about the same time. More often would
// cost more than it brings: each time, what was written must be in the cache before the next is read.
constexpr size_t PART_OF_REST = 3, PART_OF_SHARE = 16, MOST_AT_END = 64 * 1024;

product_type type_of(const ggml_tensor * op) {
    return static_cast<product_type>(product_type_of(op->src[0]->type));
}

} // namespace

bool few_products::takes(const product_kernels & kernels, const ggml_tensor * op) {
    return is_product(op) && ggml_nrows(op->src[1]) <= FEW && kernels.of[type_of(op)].multiply_few;
}

few_products::few_products(const product_kernels & kernels, const ggml_tensor * op) :
    kernels_(&kernels),
    type_(type_of(op)),
    n_columns_(static_cast<size_t>(ggml_nrows(op->src[1]))),
    n_blocks_(static_cast<size_t>(op->src[0]->ne[0]) / BLOCK),
    tile_bytes_(whole(n_columns_ * n_blocks_ * kernels.of[type_].column_block_bytes, CACHE_LINE)),
    group_rows_(kernels.of[type_].few_rows) {
    add(op);
}

bool few_products::shares_activations(const ggml_tensor * op) const {
    const product_type type = type_of(op);
    return op->src[1] == matrices_[0].op->src[1] && same_activations(type, type_);
}

void few_products::add(const ggml_tensor * op) {
    matrices_.push_back({ op, n_groups_ });
    n_groups_ += (static_cast<size_t>(op->src[0]->ne[1]) + group_rows_ - 1) / group_rows_;
}

bool few_products::writes_over(const ggml_tensor * op) const {
    return std::any_of(matrices_.begin(), matrices_.end(), [&](const matrix & m) { return overlap(m.op, op); });
}

size_t few_products::group_bytes() const {
    return group_rows_ * matrices_[0].op->src[0]->nb[1];
}

void few_products::use(char * tiles, int n_threads) {
    tiles_    = tiles;
    n_shares_ = static_cast<size_t>(n_threads);
    least_    = std::max<size_t>(1, std::min(n_groups_ / (n_shares_ * PART_OF_SHARE), MOST_AT_END / group_bytes()));
    shares_   = std::make_unique<share[]>(n_shares_);
    for (size_t i = 0; i < n_shares_; i++) {
        shares_[i].first = n_groups_ * i / n_shares_;
        shares_[i].end   = n_groups_ * (i + 1) / n_shares_;
    }
}

void few_products::begin() {
    for (size_t i = 0; i < n_shares_; i++) {
        shares_[i].next.store(shares_[i].first, std::memory_order_relaxed);
    }
}

// Each thread makes the tile for itself: that costs less than to wait for one that does it.
void few_products::run(size_t i) {
    char * tile    = tiles_ + i * tile_bytes_;
    bool   is_made = false;
    for (size_t turn = 0; turn < n_shares_; turn++) {
        share & from = shares_[(i + turn) % n_shares_];
        for (size_t first, end; take(from, first, end);) {
            if (!is_made) {
                const auto * x = static_cast<const float *>(matrices_[0].op->src[1]->data);
                kernels_->of[type_].narrow_tile(x, n_blocks_ * BLOCK, n_columns_, n_blocks_, tile);
                is_made = true;
            }
            multiply(first, end, tile);
        }
    }
}

// The next of a share's groups, unless none is left.
bool few_products::take(share & from, size_t & first, size_t & end) const {
    first = from.next.load(std::memory_order_relaxed);
    do {
        if (first >= from.end) {
            return false;
        }
        const size_t rest = from.end - first;
        end               = first + std::min(rest, std::max(least_, rest / PART_OF_REST));
    } while (!from.next.compare_exchange_weak(first, end, std::memory_order_relaxed));
    return true;
}

void few_products::multiply(size_t first, size_t end, const char * tile) const {
    for (size_t i = 0; i < matrices_.size(); i++) {
        const ggml_tensor * op     = matrices_[i].op;
        const size_t        begin  = matrices_[i].first_group;
        const size_t        behind = i + 1 < matrices_.size() ? matrices_[i + 1].first_group : n_groups_;
        const size_t        from = std::max(first, begin), to = std::min(end, behind);
        if (from >= to) {
            continue;
        }
        const auto   n_rows = static_cast<size_t>(op->src[0]->ne[1]);
        const size_t row    = (from - begin) * group_rows_;
        kernels_->of[type_of(op)].multiply_few(static_cast<const char *>(op->src[0]->data) + row * op->src[0]->nb[1], op->src[0]->nb[1],
                                               std::min((to - from) * group_rows_, n_rows - row), n_blocks_, tile, n_columns_,
                                               static_cast<float *>(op->data) + row, n_rows);
    }
}

} // namespace kollama
