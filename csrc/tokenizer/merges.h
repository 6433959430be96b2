// Pieces out of characters: the merge loop that SentencePiece's BPE (by score) and Hugging Face's
// (by rank of the merge) share.
//
// Text becomes symbols, one for each character, and two neighbours that a rule merges become one:
// always the pair of best rank, of equal ones the leftmost, until no rule fits. A symbol is a token
// id, or one of a few more for what is no token: a character that occurs only inside pieces, and a
// byte of one that occurs nowhere.

#pragma once

#include "tokenizer/zeroed_array.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <array>

namespace kollama {

using symbol = uint32_t;

constexpr unsigned SYMBOL_BITS = 20;
constexpr unsigned RULE_BITS   = 24;
constexpr symbol   NO_SYMBOL   = (1u << SYMBOL_BITS) - 1;
constexpr uint32_t NO_RULE     = (1u << RULE_BITS) - 1;

struct merge_rule {
    symbol   left, right;
    uint32_t rank; // lower is merged first
    symbol   result;
};

// (left, right) -> the rule that merges them. A cuckoo hash: a pair is in one of two slots or in
// none, so that a look-up has no branch at all, since whether a pair merges is as good as random.
class merge_table {
  public:
    // Of rules for the same pair the last one wins.
    void build(std::vector<merge_rule> rules);

    // The number of the pair's rule, or NO_RULE. Rules are numbered by rank; several can share a number.
    uint32_t find(symbol left, symbol right) const { return find_at(place(left, right), left, right); }

    // In two steps, so that the slots can be on their way into the cache meanwhile.
    struct places {
        uint32_t first, second;
    };
    places place(symbol left, symbol right) const { return place(key_of(left, right)); }
    void prefetch(places at) const {
#if defined(__GNUC__)
        __builtin_prefetch(slots_.data() + at.first);
        __builtin_prefetch(slots_.data() + at.second);
#endif
    }
    uint32_t find_at(places at, symbol left, symbol right) const {
        const uint64_t key    = key_of(left, right);
        const uint64_t one    = slots_[at.first], two = slots_[at.second];
        const uint64_t first  = mask(one >> RULE_BITS == key);
        const uint64_t second = mask(two >> RULE_BITS == key);
        return static_cast<uint32_t>((one & first) | (two & second) | ~(first | second)) & NO_RULE;
    }

    symbol   result(uint32_t rule) const { return results_[rule]; }
    void     prefetch_result(uint32_t rule) const { // or NO_RULE
#if defined(__GNUC__)
        __builtin_prefetch(&results_[std::min<size_t>(rule, results_.size() - 1)]);
#endif
    }
    // Lower is merged first; equal where rules are of equal rank, of which the leftmost comes first.
    uint32_t order(uint32_t rule) const {
        if (!orders_.empty()) {
            return rule != NO_RULE ? orders_[rule] : rule;
        }
        for (const range & one : tied_) {
            rule = rule - one.first < one.count ? one.first : rule;
        }
        return rule;
    }
    bool     has_ties() const { return ties_; } // else order() is the rule's number

  private:
    static constexpr uint64_t EMPTY = UINT64_MAX; // the key of NO_SYMBOL twice, which no rule has

    // All ones where is. Opaque, or compilers make the branch of it that it is there to avoid.
    static uint64_t mask(bool is) {
        uint64_t ones = uint64_t{ 0 } - is;
#if defined(__GNUC__)
        __asm__("" : "+r"(ones));
#endif
        return ones;
    }
    static uint64_t key_of(symbol left, symbol right) { return uint64_t{ left } << SYMBOL_BITS | right; }
    places place(uint64_t key) const {
        const uint64_t one = key * 0x9E3779B97F4A7C15u;
        const uint64_t two = (one ^ one >> 32) * seed_;
        return { static_cast<uint32_t>((one >> 32) * n_slots_ >> 32), static_cast<uint32_t>((two >> 32) * n_slots_ >> 32) };
    }
    bool put(uint64_t slot);
    std::vector<uint32_t> number(const std::vector<merge_rule> & rules);

    zeroed_array<uint64_t>   slots_; // key << RULE_BITS | rule
    uint64_t              n_slots_ = 0;
    uint64_t              seed_    = 0xC2B2AE3D27D4EB4Fu;
    std::vector<symbol>   results_; // and one that is of no rule

    // Numbers of the rules of one rank that make several pieces. SentencePiece's vocabularies have a rank or two that
    // is no real one: such a few need no look-up.
    struct range {
        uint32_t first = 0, count = 0;
    };
    std::array<range, 2>  tied_;
    std::vector<uint32_t> orders_; // where there are more
    bool                  ties_ = false;
};

// A stretch of the text, in bytes.
struct span {
    uint32_t first, last;
};

// The merge loop, with the memory it works in. Not for two threads at a time.
class merger {
  public:
    explicit merger(const merge_table & table) : table_(table) {}

    // Merges symbols in place and returns how many are left. spans, where given, are joined along.
    // Short stretches by looking through all pairs for each merge; long ones through a heap, which
    // bounds the time by n log n.
    size_t merge(symbol * symbols, span * spans, size_t n);

  private:
    static constexpr size_t SHORT = 40; // longer ones are not words

    size_t merge_short(symbol * symbols, span * spans, size_t n);
    size_t merge_long(symbol * symbols, span * spans, size_t n);

    struct node {
        uint32_t previous, next;
    };

    struct candidate {
        uint32_t rank, at;
        symbol   left, right, result;
    };

    const merge_table &    table_;
    std::vector<node>      nodes_;
    std::vector<candidate> heap_;
};

// Several short units at a time, one merge of each in turn: what a unit looks up next is fetched
// while the others go on, since the table is larger than the caches near the core. A guard stands on
// each side of a unit and merges with nothing, and the loops have few branches to be guessed wrong.
class lockstep_merger {
  public:
    static constexpr size_t MAX_UNITS   = 48;
    static constexpr size_t MAX_SYMBOLS = 30; // of a unit

    explicit lockstep_merger(const merge_table & table) : table_(table) {}

    // One unit: begin(), add() for each of at most MAX_SYMBOLS symbols, end(). Without end() it was
    // never there.
    void begin() {
        unit & u     = units_[n_units_];
        u.n          = 0;
        u.symbols[0] = NO_SYMBOL;
        std::fill(u.keys, u.keys + 8, NONE);
        n_new_pairs_ = n_pairs_;
    }
    void add(symbol s) {
        unit & u = units_[n_units_];
        pair & p = pairs_[n_new_pairs_];
        p.at     = static_cast<uint32_t>(n_units_ * STRIDE) + u.n;
        p.place  = table_.place(u.symbols[u.n], s);
        table_.prefetch(p.place);
        n_new_pairs_ += u.n > 0; // the first has only the guard before it
        u.symbols[++u.n] = s;
    }
    size_t end() {
        unit & u           = units_[n_units_];
        u.symbols[u.n + 1] = NO_SYMBOL;
        u.alive            = static_cast<uint32_t>((uint64_t{ 4 } << u.n) - 1);
        if (u.n > 8) {
            std::fill(u.keys + 8, u.keys + STRIDE, NONE);
        }
        n_pairs_ = n_new_pairs_;
        return n_units_++;
    }

    void run();
    void clear() { n_units_ = n_pairs_ = 0; }
    size_t size() const { return n_units_; }

    // What a unit became: the symbols whose bits are set.
    uint32_t       rest(size_t i) const { return units_[i].alive & ~(1u | uint32_t{ 2 } << units_[i].n); }
    const symbol * symbols(size_t i) const { return units_[i].symbols; }

  private:
    static constexpr int32_t NONE   = static_cast<int32_t>(NO_RULE << 5); // and all above
    static constexpr size_t  STRIDE = MAX_SYMBOLS + 2;

    struct unit {
        uint32_t n;                       // symbols[1] to symbols[n] to begin with
        uint32_t alive;                   // bit i: symbols[i] has not been merged into one before it
        uint32_t left, at, right;         // positions side by side since the last merge, at it; at: of the next one, once chosen
        uint32_t rule;                    // of the next merge
        merge_table::places left_place, right_place; // of their pairs
        symbol   symbols[STRIDE];
        int32_t  keys[STRIDE];            // of the pair that begins at i: order << 5 | i, or NONE
        uint32_t rules[STRIDE];           // of the same; where there are no ties, that is the order
    };

    struct pair {
        merge_table::places place;
        uint32_t            at; // number of the unit * STRIDE + position
    };

    template <bool Ties> void run();
    template <bool Ties> void look(unit & u);
    template <bool Ties> bool choose(unit & u);
    template <bool Ties> void merge(unit & u);
    template <bool Ties> void set(unit & u, uint32_t at, uint32_t rule);

    const merge_table & table_;
    unit                units_[MAX_UNITS];
    pair                pairs_[MAX_UNITS * STRIDE];
    size_t              n_units_ = 0, n_pairs_ = 0, n_new_pairs_ = 0;
};

} // namespace kollama
