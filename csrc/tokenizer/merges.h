// Pieces out of characters: the merge loop that SentencePiece's BPE (by score) and Hugging Face's
// (by rank of the merge) share.
//
// Text becomes symbols, one for each character, and two neighbours that a rule merges become one:
// always the pair of best rank, of equal ones the leftmost, until no rule fits. A symbol is a token
// id, or one of a few more for what is no token: a character that occurs only inside pieces, and a
// byte of one that occurs nowhere.

#pragma once

#include "tokenizer/vocabulary.h"

namespace kollama {

using symbol = uint32_t;

constexpr unsigned SYMBOL_BITS = 20;
constexpr unsigned RANK_BITS   = 24;
constexpr symbol   NO_SYMBOL   = (1u << SYMBOL_BITS) - 1;
constexpr uint32_t NO_RANK     = UINT32_MAX;

struct merge_rule {
    symbol   left, right;
    uint32_t rank; // lower is merged first
    symbol   result;
};

// (left, right) -> rank and result. A slot is one word: 20 + 20 bits of key, 24 of rank, so a probe
// is one load; the results lie apart, read only when a merge is made.
class merge_table {
  public:
    // Of rules for the same pair the last one wins.
    void build(const std::vector<merge_rule> & rules);

    // The slot of the pair, and its rank; NO_RANK where no rule merges it.
    uint32_t find(symbol left, symbol right, uint32_t * slot) const {
        const uint64_t key = uint64_t{ left } << SYMBOL_BITS | right;
        for (size_t i = key * MULTIPLIER >> shift_;; i = (i + 1) & mask_) {
            const uint64_t entry = slots_[i];
            if (entry >> RANK_BITS == key) {
                *slot = static_cast<uint32_t>(i);
                return static_cast<uint32_t>(entry & ((1u << RANK_BITS) - 1));
            }
            if (entry == EMPTY) {
                return NO_RANK;
            }
        }
    }

    symbol result(uint32_t slot) const { return results_[slot]; }

  private:
    static constexpr uint64_t MULTIPLIER = 0x9E3779B97F4A7C15u;
    static constexpr uint64_t EMPTY      = UINT64_MAX; // the key of NO_SYMBOL twice, which no rule has

    std::vector<uint64_t> slots_ = std::vector<uint64_t>(2, EMPTY);
    std::vector<symbol>   results_;
    size_t                mask_  = 1;
    unsigned              shift_ = 63;
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
    static constexpr size_t SHORT = 40; // where both ways take the same time, measured on Korean text

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

} // namespace kollama
