#include "products/product.h"

#include "ggml-backend.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr size_t NEAR_CACHE = 512 * 1024; // of a core, that unpacked weights may take

} // namespace

int product_type_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return PRODUCT_Q4_0;
        case GGML_TYPE_Q4_1: return PRODUCT_Q4_1;
        case GGML_TYPE_Q5_0: return PRODUCT_Q5_0;
        case GGML_TYPE_Q5_1: return PRODUCT_Q5_1;
        case GGML_TYPE_Q8_0: return PRODUCT_Q8_0;
        case GGML_TYPE_F16:  return PRODUCT_F16;
        case GGML_TYPE_Q6_K: return PRODUCT_Q6_K;
        default:             return N_PRODUCT_TYPES;
    }
}

bool is_product(const ggml_tensor * op) {
    const ggml_tensor * weights     = op->src[0];
    const ggml_tensor * activations = op->src[1];
    return op->op == GGML_OP_MUL_MAT && product_type_of(weights->type) != N_PRODUCT_TYPES && activations->type == GGML_TYPE_F32 &&
           op->type == GGML_TYPE_F32 && weights->op == GGML_OP_NONE && !weights->view_src && // no view of the K/V memory
           weights->ne[2] == 1 && weights->ne[3] == 1 && weights->nb[0] == ggml_type_size(weights->type) &&
           weights->ne[0] % BLOCK == 0 &&
           ggml_is_contiguous(activations) && ggml_is_contiguous(op) &&
           (!weights->buffer || ggml_backend_buffer_is_host(weights->buffer)); // as ggml has it in a file, not in an order of its own
}

bool overlap(const ggml_tensor * a, const ggml_tensor * b) {
    const auto * first  = static_cast<const char *>(a->data);
    const auto * second = static_cast<const char *>(b->data);
    return !first || !second || (first < second + ggml_nbytes(b) && second < first + ggml_nbytes(a));
}

bool scratch::reserve(size_t size) {
    if (size <= size_) {
        return true;
    }
    std::free(memory_);
    memory_ = std::malloc(size + CACHE_LINE);
    size_   = memory_ ? size : 0;
    const size_t at = reinterpret_cast<uintptr_t>(memory_) % CACHE_LINE;
    data_   = static_cast<char *>(memory_) + (at ? CACHE_LINE - at : 0);
    return memory_ != nullptr;
}

bool product::takes(const product_kernels & kernels, const ggml_tensor * op) {
    return is_product(op) && ggml_nrows(op->src[1]) > FEW && kernels.of[product_type_of(op->src[0]->type)].multiply;
}

product::product(const product_kernels & kernels, const ggml_tensor * op, int n_threads) :
    op_(op),
    type_(static_cast<product_type>(product_type_of(op->src[0]->type))),
    kernel_(kernels.of[type_]),
    n_rows_(static_cast<size_t>(op->src[0]->ne[1])),
    n_columns_(static_cast<size_t>(ggml_nrows(op->src[1]))),
    n_blocks_(static_cast<size_t>(op->src[0]->ne[0]) / BLOCK),
    n_tiles_((n_columns_ + COLUMNS - 1) / COLUMNS),
    n_threads_(static_cast<size_t>(n_threads)),
    n_panels_((n_rows_ + kernel_.panel_rows - 1) / kernel_.panel_rows) {
    // Few enough for the cache, and for the threads to end at about the same time.
    const size_t fit = std::max<size_t>(1, NEAR_CACHE / panel_bytes());
    panels_in_chunk_ = std::max<size_t>(1, std::min(fit, n_panels_ / (n_threads_ * 4)));
}

bool product::same_activations(const product & other) const {
    return op_->src[1] == other.op_->src[1] && kollama::same_activations(type_, other.type_);
}

void product::use(char * tiles, char * panels) {
    tiles_  = tiles;
    panels_ = panels;
}

void product::tile(size_t i, size_t n) const {
    const auto * x      = static_cast<const float *>(op_->src[1]->data);
    const size_t length = n_blocks_ * BLOCK;
    for (size_t tile = i; tile < n_tiles_; tile += n) {
        const size_t first = tile * COLUMNS;
        kernel_.tile(x + first * length, length, std::min(COLUMNS, n_columns_ - first), n_blocks_, tiles_ + tile * tile_bytes());
    }
}

void product::multiply(size_t i) {
    const ggml_tensor * weights = op_->src[0];
    const auto          rows    = static_cast<const char *>(weights->data);
    const size_t        n_each  = kernel_.panel_rows;
    auto *              out     = static_cast<float *>(op_->data);
    char *              packed  = panels_ + i * panels_in_chunk_ * panel_bytes();
    for (size_t first; (first = next_panel_.fetch_add(panels_in_chunk_, std::memory_order_relaxed)) < n_panels_;) {
        const size_t last = std::min(first + panels_in_chunk_, n_panels_);
        auto rows_in = [&](size_t panel) { return std::min(n_each, n_rows_ - panel * n_each); };
        for (size_t panel = first; panel < last; panel++) {
            kernel_.pack(rows + panel * n_each * weights->nb[1], weights->nb[1], rows_in(panel), n_blocks_,
                         packed + (panel - first) * panel_bytes());
        }
        for (size_t tile = 0; tile < n_tiles_; tile++) { // each is read once, while all panels are near
            const size_t column = tile * COLUMNS;
            for (size_t panel = first; panel < last; panel++) {
                kernel_.multiply(packed + (panel - first) * panel_bytes(), tiles_ + tile * tile_bytes(), n_blocks_, rows_in(panel),
                                 std::min(COLUMNS, n_columns_ - column), out + column * n_rows_ + panel * n_each, n_rows_);
            }
        }
    }
}

} // namespace kollama
