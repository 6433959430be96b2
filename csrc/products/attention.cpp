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

bool attention::takes(const ggml_tensor * op) {
#ifdef KOLLAMA_X86_KERNELS
    if (op->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
    float              options[3]; // scale, max_bias, logit_softcap
    std::memcpy(options, op->op_params, sizeof(options));
    return q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && q->ne[1] <= ATTENTION_ROWS && q->ne[3] == 1 &&
           k->ne[3] == 1 && v->ne[3] == 1 && q->ne[2] % k->ne[2] == 0 && k->ne[2] == v->ne[2] && k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 &&
           q->nb[0] == sizeof(float) && k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == sizeof(ggml_fp16_t) && op->nb[0] == sizeof(float) &&
           (mask && mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) && mask->ne[2] == 1 && mask->ne[3] == 1 && mask->ne[0] == k->ne[1]) &&
           !op->src[4] && options[1] == 0.0f && options[2] == 0.0f;
#else
    (void) op;
    return false;
#endif
}

bool attended_cells::reserve() {
    try {
        for (row & r : rows_) {
            r.cells.resize(static_cast<size_t>(mask_->ne[0]));
            r.bias.resize(static_cast<size_t>(mask_->ne[0]) + 4); // as many are read at a time
        }
        return true;
    } catch (const std::bad_alloc &) {
        return false;
    }
}

attention::attention(const ggml_tensor * op, const attended_cells & cells) :
    op_(op),
    attended_(&cells),
    n_rows_(static_cast<size_t>(op->src[0]->ne[1])),
    n_heads_(static_cast<size_t>(op->src[0]->ne[2])),
    n_groups_(static_cast<size_t>(op->src[1]->ne[2])),
    n_cells_(static_cast<size_t>(op->src[1]->ne[1])),
    n_parts_((n_cells_ + ATTENTION_PART - 1) / ATTENTION_PART),
    n_value_(static_cast<size_t>(op->src[2]->ne[0])),
    out_bytes_((n_value_ + 8) * sizeof(float)) {} // each begins as aligned as the first

bool attention::shares_parts() const {
    return n_rows_ <= static_cast<size_t>(FEW);
}

size_t attention::bytes(size_t n_threads) const {
    return (shares_parts() ? n_rows_ * n_heads_ : n_threads * ROWS_AT_ONCE * heads_of_group()) * n_parts_ * out_bytes_;
}

size_t attention::n_parts_of(size_t row) const {
    return (attended_->of(row).n + ATTENTION_PART - 1) / ATTENTION_PART;
}

#ifdef KOLLAMA_X86_KERNELS

void attended_cells::list(size_t i, size_t n) {
    for (size_t r = i; r < rows_.size(); r += n) {
        const auto * mask = reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask_->data) + r * mask_->nb[1]);
        rows_[r].n        = list_cells_avx2(mask, static_cast<size_t>(mask_->ne[0]), rows_[r].cells.data(), rows_[r].bias.data());
    }
}

void attention::attend(size_t i, size_t n_threads) {
    if (shares_parts()) {
        attend_parts(n_threads);
    } else {
        attend_rows(parts_ + i * ROWS_AT_ONCE * heads_of_group() * n_parts_ * out_bytes_);
    }
}

// What next(part) gives, until it is false: the memory of each part is asked for while the one before is computed.
template <class NEXT> void attention::attend_in_turn(const NEXT & next) const {
    attention_part two[2] = {};
    bool           goes_on = next(two[0]);
    two[0].is_first        = true;
    for (size_t i = 0; goes_on; i++) {
        attention_part & part = two[i % 2];
        goes_on               = next(two[(i + 1) % 2]);
        part.next             = goes_on ? &two[(i + 1) % 2] : nullptr;
        attend_avx2(part);
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
        n_parts = std::max(n_parts, n_parts_of(row));
    }
    const size_t n = n_parts * n_groups_;
    for (size_t i; take(i, n, 0);) {
        size_t row = 0;
        attend_in_turn([&](attention_part & next) {
            while (row == n_rows_ || i / n_groups_ >= n_parts_of(row)) {
                if (row < n_rows_) {
                    row++;
                } else if (take(i, n, n_threads - 1)) { // in advance, and one is left for each of the others
                    row = 0;
                } else {
                    return false;
                }
            }
            const size_t group = i % n_groups_;
            next               = part_of(group, row, i / n_groups_, at(row, group * heads_of_group()));
            row++;
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
        attend_in_turn([&](attention_part & next) {
            for (; row < last && n_done == n_parts_of(row); n_done = 0) {
                row++;
            }
            if (row == last) {
                return false;
            }
            next = part_of(group, row, n_done++, parts + (row - first) * each);
            return true;
        });
        for (row = first; row < last; row++) {
            for (size_t head = 0; head < heads_of_group(); head++) {
                merge_head(row, group * heads_of_group() + head, parts + (row - first) * each + head * n_parts_ * out_bytes_);
            }
        }
    }
}

// out: of the first of the group's heads, all parts of the row.
attention_part attention::part_of(size_t group, size_t row, size_t part, char * out) const {
    const ggml_tensor *  q = op_->src[0], *k = op_->src[1], *v = op_->src[2];
    const auto &         cells = attended_->of(row);
    const size_t         first = part * ATTENTION_PART;
    attention_part       p     = {};
    std::memcpy(&p.scale, op_->op_params, sizeof(p.scale));
    p.keys         = static_cast<const char *>(k->data) + group * k->nb[2];
    p.values       = static_cast<const char *>(v->data) + group * v->nb[2];
    p.key_stride   = k->nb[1];
    p.value_stride = v->nb[1];
    p.n_key        = static_cast<size_t>(k->ne[0]);
    p.n_value      = n_value_;
    p.n_cells      = std::min(ATTENTION_PART, cells.n - first);
    p.cells        = cells.cells.data() + first;
    p.bias         = cells.bias.data() + first;
    p.queries      = static_cast<const char *>(q->data) + row * q->nb[1] + group * heads_of_group() * q->nb[2];
    p.query_stride = q->nb[2];
    p.n_heads      = heads_of_group();
    p.out          = out + part * out_bytes_;
    p.out_stride   = n_parts_ * out_bytes_;
    return p;
}

void attention::merge(size_t i, size_t n) const {
    for (size_t one = i; one < n_rows_ * n_heads_; one += n) {
        merge_head(one / n_heads_, one % n_heads_, at(one / n_heads_, one % n_heads_));
    }
}

void attention::merge_head(size_t row, size_t head, const char * parts) const {
    merge_avx2(parts, out_bytes_, n_parts_of(row), n_value_,
               reinterpret_cast<float *>(static_cast<char *>(op_->data) + head * op_->nb[1] + row * op_->nb[2]));
}

#else

void attended_cells::list(size_t, size_t) {}
void attention::attend(size_t, size_t) {}
void attention::merge(size_t, size_t) const {}

#endif

} // namespace kollama
