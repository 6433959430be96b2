#include "products/attention.h"

#include "products/product.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace kollama {
namespace {

// That a thread takes, where there are many: with fewer, nothing could be asked for in advance.
constexpr size_t ROWS_AT_ONCE = 4;

} // namespace

bool is_attention(const ggml_tensor * op) {
#ifdef KOLLAMA_X86_KERNELS
    if (op->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
    float              options[3]; // scale, max_bias, logit_softcap
    std::memcpy(options, op->op_params, sizeof(options));
    return q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && q->ne[3] == 1 &&
           k->ne[3] == 1 && v->ne[3] == 1 && q->ne[2] % k->ne[2] == 0 && k->ne[2] == v->ne[2] && k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 &&
           q->nb[0] == sizeof(float) && k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == sizeof(ggml_fp16_t) && op->nb[0] == sizeof(float) &&
           (mask && mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) && mask->ne[2] == 1 && mask->ne[3] == 1 && mask->ne[0] == k->ne[1]) &&
           !op->src[4] && options[1] == 0.0f && options[2] == 0.0f;
#else
    (void) op;
    return false;
#endif
}

bool attention::takes(const ggml_tensor * op) {
    return is_attention(op) && op->src[0]->ne[1] <= ATTENTION_ROWS;
}

bool attended_cells::reserve() {
    try {
        for (row & r : rows_) {
            r.cells.resize(static_cast<size_t>(mask_->ne[0]));
            r.bias.resize(static_cast<size_t>(mask_->ne[0]) + MORE_BIAS);
        }
        return true;
    } catch (const std::bad_alloc &) {
        return false;
    }
}

attention::attention(const product_kernels & kernels, const ggml_tensor * op, const attended_cells & cells) :
    kernels_(&kernels),
    op_(op),
    attended_(&cells),
    n_rows_(static_cast<size_t>(op->src[0]->ne[1])),
    n_heads_(static_cast<size_t>(op->src[0]->ne[2])),
    n_groups_(static_cast<size_t>(op->src[1]->ne[2])),
    n_cells_(static_cast<size_t>(op->src[1]->ne[1])),
    n_parts_(n_attention_parts(n_cells_)),
    n_value_(static_cast<size_t>(op->src[2]->ne[0])),
    out_bytes_(part_bytes(op)) {}

bool attention::shares_parts() const {
    return n_rows_ <= static_cast<size_t>(FEW);
}

size_t attention::bytes(size_t n_threads) const {
    return (shares_parts() ? n_rows_ * n_heads_ : n_threads * ROWS_AT_ONCE * heads_of_group()) * n_parts_ * out_bytes_;
}

size_t part_bytes(const ggml_tensor * op) {
    return (static_cast<size_t>(op->src[2]->ne[0]) + 16) * sizeof(float); // each begins at a cache line, as the first
}

#ifdef KOLLAMA_X86_KERNELS

void attended_cells::list(size_t i, size_t n) {
    const auto n_cells = static_cast<size_t>(mask_->ne[0]);
    for (size_t r = i; r < rows_.size(); r += n) {
        row &            now  = rows_[r];
        const uint16_t * mask = row_of_mask(mask_, r);
        now.n                 = list_cells_avx2(mask, n_cells, now.cells.data(), now.bias.data());
        if (r > 0) {
            const auto same = static_cast<uint32_t>(std::mismatch(mask, mask + n_cells, row_of_mask(mask_, r - 1)).first - mask);
            now.n_shared    = static_cast<size_t>(std::lower_bound(now.cells.data(), now.cells.data() + now.n, same) - now.cells.data());
        }
    }
}

size_t attended_cells::n_alike(size_t first, size_t part, size_t n) const {
    const size_t begin = part * ATTENTION_PART, n_cells = of(first).cells_of_part(part);
    size_t       alike = 1;
    while (alike < n && rows_[first + alike].n_shared >= begin + n_cells && of(first + alike).cells_of_part(part) == n_cells) {
        alike++;
    }
    return alike;
}

void attention::attend(size_t i, size_t n_threads) {
    if (shares_parts()) {
        attend_parts(n_threads);
    } else {
        attend_rows(parts_ + i * ROWS_AT_ONCE * heads_of_group() * n_parts_ * out_bytes_);
    }
}

// The next of n, unless fewer than n_left would be left behind it.
bool attention::take(size_t & i, size_t n, size_t n_left) {
    if (next_.load(std::memory_order_relaxed) + n_left >= n) {
        return false;
    }
    i = next_.fetch_add(1, std::memory_order_relaxed);
    return i < n;
}

// A part of all groups comes before the next part: the groups lie side by side in the memory.
void attention::attend_parts(size_t n_threads) {
    size_t n_parts = 0;
    for (size_t row = 0; row < n_rows_; row++) {
        n_parts = std::max(n_parts, attended_->of(row).n_parts());
    }
    const size_t n = n_parts * n_groups_;
    for (size_t i; take(i, n, 0);) {
        size_t row = 0;
        attend_in_turn(*kernels_, [&](attention_part & next) {
            while (row == n_rows_ || i / n_groups_ >= attended_->of(row).n_parts()) {
                if (row < n_rows_) {
                    row++;
                } else if (take(i, n, n_threads - 1)) { // in advance, and one is left for each of the others
                    row = 0;
                } else {
                    return false;
                }
            }
            const size_t group = i % n_groups_, part = i / n_groups_;
            next        = part_of(op_, attended_->of(row), row, group, part, at(row, group * heads_of_group()), n_parts_ * out_bytes_);
            next.n_rows = attended_->n_alike(row, part, n_rows_ - row);
            next.out_row = n_heads_ * n_parts_ * out_bytes_;
            row += next.n_rows;
            return true;
        });
    }
}

void attention::attend_rows(char * parts) {
    const size_t each = heads_of_group() * n_parts_ * out_bytes_; // bytes of a row
    const size_t n    = (n_rows_ + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    for (size_t i; take(i, n_groups_ * n, 0);) {
        const size_t group = i / n, first = i % n * ROWS_AT_ONCE, last = std::min(first + ROWS_AT_ONCE, n_rows_);
        size_t       row = first, n_done = 0; // parts of the row
        attend_in_turn(*kernels_, [&](attention_part & next) {
            for (; row < last && n_done == attended_->of(row).n_parts(); n_done = 0) {
                row++;
            }
            if (row == last) {
                return false;
            }
            next = part_of(op_, attended_->of(row), row, group, n_done++, parts + (row - first) * each, n_parts_ * out_bytes_);
            return true;
        });
        for (row = first; row < last; row++) {
            for (size_t head = 0; head < heads_of_group(); head++) {
                merge_head(*kernels_, op_, row, group * heads_of_group() + head, parts + (row - first) * each + head * n_parts_ * out_bytes_, attended_->of(row).n_parts());
            }
        }
    }
}

attention_part part_of(const ggml_tensor * op, const attended & cells, size_t row, size_t group, size_t part, char * out, size_t out_stride) {
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2];
    const size_t   first = part * ATTENTION_PART;
    attention_part p     = {};
    std::memcpy(&p.scale, op->op_params, sizeof(p.scale));
    p.n_heads      = static_cast<size_t>(q->ne[2] / k->ne[2]);
    p.keys         = static_cast<const char *>(k->data) + group * k->nb[2];
    p.values       = static_cast<const char *>(v->data) + group * v->nb[2];
    p.key_stride   = k->nb[1];
    p.value_stride = v->nb[1];
    p.n_key        = static_cast<size_t>(k->ne[0]);
    p.n_value      = static_cast<size_t>(v->ne[0]);
    p.n_cells      = cells.cells_of_part(part);
    p.cells        = cells.cells + first;
    p.bias         = cells.bias + first;
    p.queries      = static_cast<const char *>(q->data) + row * q->nb[1] + group * p.n_heads * q->nb[2];
    p.n_rows       = 1;
    p.query_row    = q->nb[1];
    p.query_stride = q->nb[2];
    p.out          = out + part * part_bytes(op);
    p.out_stride   = out_stride;
    return p;
}

void attention::merge(size_t i, size_t n) const {
    for (size_t one = i; one < n_rows_ * n_heads_; one += n) {
        merge_head(*kernels_, op_, one / n_heads_, one % n_heads_, at(one / n_heads_, one % n_heads_), attended_->of(one / n_heads_).n_parts());
    }
}

void merge_head(const product_kernels & kernels, const ggml_tensor * op, size_t row, size_t head, char * parts, size_t n_parts) {
    kernels.merge(parts, part_bytes(op), n_parts, static_cast<size_t>(op->src[2]->ne[0]),
                  reinterpret_cast<float *>(static_cast<char *>(op->data) + head * op->nb[1] + row * op->nb[2]));
}

#else

void attended_cells::list(size_t, size_t) {}
void attention::attend(size_t, size_t) {}
void attention::merge(size_t, size_t) const {}

#endif

} // namespace kollama
