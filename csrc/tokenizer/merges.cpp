#include "tokenizer/merges.h"

#include <algorithm>

namespace kollama {

void merge_table::build(const std::vector<merge_rule> & rules) {
    unsigned bits = 4;
    while ((size_t{ 1 } << bits) < rules.size() + rules.size() / 2) {
        bits++;
    }
    shift_ = 64 - bits;
    mask_  = (size_t{ 1 } << bits) - 1;
    slots_.assign(mask_ + 1, EMPTY);
    results_.assign(mask_ + 1, 0);
    for (const merge_rule & rule : rules) {
        const uint64_t key = uint64_t{ rule.left } << SYMBOL_BITS | rule.right;
        size_t         i   = key * MULTIPLIER >> shift_;
        while (slots_[i] != EMPTY && slots_[i] >> RANK_BITS != key) {
            i = (i + 1) & mask_;
        }
        slots_[i]   = key << RANK_BITS | rule.rank;
        results_[i] = rule.result;
    }
}

size_t merger::merge(symbol * symbols, span * spans, size_t n) {
    return n <= SHORT ? merge_short(symbols, spans, n) : merge_long(symbols, spans, n);
}

size_t merger::merge_short(symbol * symbols, span * spans, size_t n) {
    uint32_t ranks[SHORT], slots[SHORT];
    for (size_t i = 0; i + 1 < n; i++) {
        ranks[i] = table_.find(symbols[i], symbols[i + 1], &slots[i]);
    }
    while (n > 1) {
        uint32_t best = NO_RANK;
        size_t   at   = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            if (ranks[i] < best) {
                best = ranks[i];
                at   = i;
            }
        }
        if (best == NO_RANK) {
            break;
        }
        symbols[at] = table_.result(slots[at]);
        if (spans) {
            spans[at].last = spans[at + 1].last;
            std::copy(spans + at + 2, spans + n, spans + at + 1);
        }
        n--;
        for (size_t i = at + 1; i < n; i++) {
            symbols[i]   = symbols[i + 1];
            ranks[i - 1] = ranks[i];
            slots[i - 1] = slots[i];
        }
        if (at + 1 < n) {
            ranks[at] = table_.find(symbols[at], symbols[at + 1], &slots[at]);
        }
        if (at > 0) {
            ranks[at - 1] = table_.find(symbols[at - 1], symbols[at], &slots[at - 1]);
        }
    }
    return n;
}

size_t merger::merge_long(symbol * symbols, span * spans, size_t n) {
    constexpr uint32_t END = UINT32_MAX;
    const auto later = [](const candidate & a, const candidate & b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    };
    auto look = [&](uint32_t left, uint32_t right) {
        uint32_t       slot;
        const uint32_t rank = table_.find(symbols[left], symbols[right], &slot);
        if (rank != NO_RANK) {
            heap_.push_back({ rank, left, symbols[left], symbols[right], table_.result(slot) });
            return true;
        }
        return false;
    };
    nodes_.resize(n);
    heap_.clear();
    for (uint32_t i = 0; i < n; i++) {
        nodes_[i] = { i ? i - 1 : END, i + 1 < n ? i + 1 : END };
        if (i > 0) {
            look(i - 1, i);
        }
    }
    std::make_heap(heap_.begin(), heap_.end(), later);
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        const candidate best = heap_.back();
        heap_.pop_back();
        const uint32_t next = symbols[best.at] == best.left ? nodes_[best.at].next : END;
        if (next == END || symbols[next] != best.right) {
            continue; // one of the two was merged meanwhile
        }
        symbols[best.at] = best.result;
        symbols[next]    = NO_SYMBOL;
        if (spans) {
            spans[best.at].last = spans[next].last;
        }
        const uint32_t after = nodes_[next].next;
        nodes_[best.at].next = after;
        if (after != END) {
            nodes_[after].previous = best.at;
            if (look(best.at, after)) {
                std::push_heap(heap_.begin(), heap_.end(), later);
            }
        }
        if (nodes_[best.at].previous != END && look(nodes_[best.at].previous, best.at)) {
            std::push_heap(heap_.begin(), heap_.end(), later);
        }
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != END; i = nodes_[i].next, kept++) {
        symbols[kept] = symbols[i];
        if (spans) {
            spans[kept] = spans[i];
        }
    }
    return kept;
}

} // namespace kollama
