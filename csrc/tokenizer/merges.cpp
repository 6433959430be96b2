#include "tokenizer/merges.h"

#include "tokenizer/bits.h"

#include <algorithm>
#include <numeric>

namespace kollama {

void merge_table::build(std::vector<merge_rule> rules) {
    if (rules.size() >= NO_RULE) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("%zu merges are more than the %u that fit here", rules.size(), NO_RULE - 1));
    }
    const auto by_rank = [](const merge_rule & a, const merge_rule & b) { return a.rank < b.rank; };
    if (!std::is_sorted(rules.begin(), rules.end(), by_rank)) {
        std::stable_sort(rules.begin(), rules.end(), by_rank);
    }
    const std::vector<uint32_t> numbers = number(rules);
    n_slots_ = rules.size() * 5 / 2 + 8; // with two places each, less than half full has room for all, nearly always
    for (size_t n = 0; n == 0 || n < rules.size();) {
        if (n == 0) {
            slots_ = zeroed_array<uint64_t>(n_slots_);
            std::fill(slots_.data(), slots_.data() + n_slots_, EMPTY);
        }
        if (rules.empty()) {
            break;
        }
        if (put(key_of(rules[n].left, rules[n].right) << RULE_BITS | numbers[n])) {
            n++;
        } else { // else with other places
            seed_    = (seed_ ^ seed_ >> 29) * 0x9E3779B97F4A7C15u | 1;
            n_slots_ = n_slots_ + n_slots_ / 8;
            n        = 0;
        }
    }
}

// Numbers rules by rank. All that make one piece of one rank have one number, which is then their order, too: by score, most
// pieces have a rank of their own. Where several pieces share a rank, each of its rules has a number.
std::vector<uint32_t> merge_table::number(const std::vector<merge_rule> & rules) {
    std::vector<uint32_t> numbers(rules.size());
    std::vector<range>    tied;
    results_.clear();
    orders_.clear();
    for (size_t first = 0, end; first < rules.size(); first = end) {
        bool is_tied = false;
        for (end = first; end < rules.size() && rules[end].rank == rules[first].rank; end++) {
            is_tied |= rules[end].result != rules[first].result;
        }
        const uint32_t start = static_cast<uint32_t>(results_.size());
        for (size_t n = first; n < end; n++) {
            numbers[n] = start + (is_tied ? static_cast<uint32_t>(n - first) : 0);
            if (is_tied || n == first) {
                results_.push_back(rules[n].result);
            }
        }
        if (is_tied) {
            tied.push_back({ start, static_cast<uint32_t>(end - first) });
        }
    }
    ties_ = !tied.empty();
    tied_ = {};
    if (tied.size() <= tied_.size()) {
        std::copy(tied.begin(), tied.end(), tied_.begin());
    } else {
        orders_.resize(results_.size());
        std::iota(orders_.begin(), orders_.end(), 0u);
        for (const range & one : tied) {
            std::fill_n(orders_.begin() + one.first, one.count, one.first);
        }
    }
    results_.push_back(NO_SYMBOL);
    return numbers;
}

// Puts a slot in one of its two places. What was there moves to its other one, and so on; false
// where that goes round in a circle.
bool merge_table::put(uint64_t slot) {
    const places where = place(slot >> RULE_BITS);
    for (uint32_t at : { where.first, where.second }) {
        if (slots_[at] >> RULE_BITS == slot >> RULE_BITS) {
            slots_[at] = slot;
            return true;
        }
    }
    uint32_t at = slots_[where.first] == EMPTY ? where.first : where.second;
    for (int moves = 0; moves < 200; moves++) {
        std::swap(slots_[at], slot);
        if (slot == EMPTY) {
            return true;
        }
        const places other = place(slot >> RULE_BITS);
        at                 = other.first == at ? other.second : other.first;
    }
    return false;
}

size_t merger::merge(symbol * symbols, span * spans, size_t n) {
    return n <= SHORT ? merge_short(symbols, spans, n) : merge_long(symbols, spans, n);
}

size_t merger::merge_short(symbol * symbols, span * spans, size_t n) {
    uint32_t rules[SHORT], orders[SHORT];
    auto look = [&](size_t i) {
        rules[i]  = table_.find(symbols[i], symbols[i + 1]);
        orders[i] = rules[i] == NO_RULE ? NO_RULE : table_.order(rules[i]);
    };
    for (size_t i = 0; i + 1 < n; i++) {
        look(i);
    }
    while (n > 1) {
        uint32_t best = NO_RULE;
        size_t   at   = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            if (orders[i] < best) {
                best = orders[i];
                at   = i;
            }
        }
        if (best == NO_RULE) {
            break;
        }
        symbols[at] = table_.result(rules[at]);
        if (spans) {
            spans[at].last = spans[at + 1].last;
            std::copy(spans + at + 2, spans + n, spans + at + 1);
        }
        n--;
        for (size_t i = at + 1; i < n; i++) {
            symbols[i]    = symbols[i + 1];
            rules[i - 1]  = rules[i];
            orders[i - 1] = orders[i];
        }
        if (at + 1 < n) {
            look(at);
        }
        if (at > 0) {
            look(at - 1);
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
        const uint32_t rule = table_.find(symbols[left], symbols[right]);
        if (rule != NO_RULE) {
            heap_.push_back({ table_.order(rule), left, symbols[left], symbols[right], table_.result(rule) });
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

// ---- several at a time ---------------------------------------------------------------------------

template <bool Ties> inline void lockstep_merger::set(unit & u, uint32_t at, uint32_t rule) {
    u.keys[at] = static_cast<int32_t>((Ties ? table_.order(rule) : rule) << 5 | at);
    if (Ties) {
        u.rules[at] = rule;
    }
}

// Looks up the pairs that the last merge has made.
template <bool Ties> inline void lockstep_merger::look(unit & u) {
    set<Ties>(u, u.at, table_.find_at(u.right_place, u.symbols[u.at], u.symbols[u.right]));
    set<Ties>(u, u.left, table_.find_at(u.left_place, u.symbols[u.left], u.symbols[u.at]));
}

// Finds the merge that comes next; false where there is none.
template <bool Ties> inline bool lockstep_merger::choose(unit & u) {
    int32_t best = NONE;
    for (uint32_t i = 0; i < u.n; i += 8) {
        for (uint32_t k = 0; k < 8; k++) {
            best = std::min(best, u.keys[i + k]);
        }
    }
    u.at   = static_cast<uint32_t>(best) & 31;
    u.rule = Ties ? u.rules[u.at] : static_cast<uint32_t>(best) >> 5;
    table_.prefetch_result(u.rule);
    return best != NONE;
}

// Merges what choose() has found.
template <bool Ties> inline void lockstep_merger::merge(unit & u) {
    const uint32_t at    = u.at;
    const uint32_t after = u.alive >> at >> 1; // bit i: position at + 1 + i
    const uint32_t next  = at + 1 + lowest_bit(after);
    const uint32_t rest  = after & (after - 1); // never 0: the guard at the end merges with nothing
    u.alive ^= uint32_t{ 1 } << next;
    u.keys[next]  = NONE;
    u.symbols[at] = table_.result(u.rule);
    u.right       = at + 1 + lowest_bit(rest);
    u.left        = highest_bit(u.alive & ((uint32_t{ 1 } << at) - 1));
    u.right_place = table_.place(u.symbols[at], u.symbols[u.right]);
    u.left_place  = table_.place(u.symbols[u.left], u.symbols[at]);
    table_.prefetch(u.right_place);
    table_.prefetch(u.left_place);
}

template <bool Ties> void lockstep_merger::run() {
    for (size_t i = 0; i < n_pairs_; i++) {
        unit &         u  = units_[pairs_[i].at / STRIDE];
        const uint32_t at = pairs_[i].at % STRIDE;
        set<Ties>(u, at, table_.find_at(pairs_[i].place, u.symbols[at], u.symbols[at + 1]));
    }
    uint8_t active[MAX_UNITS];
    size_t  n_active = 0;
    for (size_t i = 0; i < n_units_; i++) {
        active[n_active] = static_cast<uint8_t>(i);
        n_active += choose<Ties>(units_[i]);
    }
    while (n_active > 0) {
        for (size_t i = 0; i < n_active; i++) {
            merge<Ties>(units_[active[i]]);
        }
        size_t kept = 0;
        for (size_t i = 0; i < n_active; i++) {
            const uint8_t which = active[i];
            active[kept]        = which;
            look<Ties>(units_[which]);
            kept += choose<Ties>(units_[which]);
        }
        n_active = kept;
    }
}

void lockstep_merger::run() {
    table_.has_ties() ? run<true>() : run<false>();
}

} // namespace kollama
