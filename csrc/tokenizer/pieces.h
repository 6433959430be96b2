// What a vocabulary and its merges say about characters: the symbol of each, and where text may be
// cut so that no piece is cut. Immutable once built.

#pragma once

#include "tokenizer/chars.h"
#include "tokenizer/merges.h"

#include <algorithm>
#include <array>

namespace kollama {

struct piece_rules {
    bool space_is_mark  = true;  // a space in the text is U+2581
    bool split_marks    = false; // each U+2581 begins a word of its own (Metaspace with split)
    bool byte_fallback  = true;
    bool fuse_unk       = false;
    bool ignore_merges  = false; // a word that is a piece is that token, whatever the merges say
    bool cuttable       = true;  // characters alone decide where pieces can end
};

class piece_table {
  public:
    // Merge by score: every piece that two others, or characters, put together make.
    void build_by_score(const vocabulary & vocab);
    // Merge by rank, in the order given, of token ids.
    void build_by_rank(const vocabulary & vocab, const piece_rules & rules, const std::vector<merge_rule> & merges);

    const merge_table & merges() const { return merges_; }
    const piece_rules & rules() const { return rules_; }

    // The symbol of a character; NO_SYMBOL where no piece is or has it.
    symbol of(uint32_t cp) const { return cp < 0x110000 ? pages_[page_of_[cp >> 8] * 256u + (cp & 255)] : NO_SYMBOL; }
    symbol of_basic(uint32_t cp) const { return pages_[page_of_[cp >> 8] * 256u + (cp & 255)]; } // below U+10000
    symbol of_ascii(uint8_t byte) const { return ascii_[byte]; }
    symbol of_byte(uint8_t byte) const { return bytes_[byte]; }
    symbol unknown() const { return unknown_; }
    bool   knows_bytes() const { return knows_bytes_; } // every byte has a symbol

    // The ids of a symbol that is no token; count of them, at most 4.
    size_t n_tokens() const { return n_tokens_; }
    size_t spell(symbol s, int32_t * ids) const;

    // Whether text may be cut before U+2581 where character previous stands before it.
    bool cuts_before_mark(uint32_t previous) const {
        return mark_follows_.empty() || !std::binary_search(mark_follows_.begin(), mark_follows_.end(), previous);
    }
    bool always_cuts_before_mark() const { return cuts_marks_ && mark_follows_.empty(); }
    bool cuts_marks() const { return cuts_marks_; }
    // An ASCII character that is in no piece but its own: text may be cut on both sides of it.
    bool is_alone(uint8_t byte) const { return alone_[byte]; }
    // Whether some piece may have the two side by side. A filter: it can say yes where none has.
    bool may_join(uint32_t left, uint32_t right) const {
        const uint64_t bit = pair_bit(left, right);
        return pairs_[bit / 64] >> (bit % 64) & 1;
    }
    bool cuts_pairs() const { return cuts_pairs_; }
    // The same, exact, for an ASCII character beside another one, of which the first byte is known.
    bool may_join_ascii(uint8_t ascii, uint8_t next_lead) const { return ascii_first_[ascii] >> (next_lead & 63) & 1; }
    bool may_follow_ascii(uint8_t lead, uint8_t ascii) const { return ascii_last_[ascii] >> (lead & 63) & 1; }

  private:
    uint64_t pair_bit(uint32_t left, uint32_t right) const {
        return (uint64_t{ left } << 21 | right) * 0x9E3779B97F4A7C15u >> pair_shift_;
    }
    void   set(uint32_t cp, symbol s);
    symbol add_extra(std::vector<int32_t> ids);
    void   begin(const vocabulary & vocab, const piece_rules & rules);
    void   note_pairs(std::string_view piece);
    void   finish();

    piece_rules                  rules_;
    merge_table                  merges_;
    std::array<uint16_t, 0x1100> page_of_{};
    std::vector<symbol>          pages_ = std::vector<symbol>(256, NO_SYMBOL);
    std::array<symbol, 128>      ascii_{};
    std::array<symbol, 256>      bytes_{};
    symbol                       unknown_     = NO_SYMBOL;
    bool                         knows_bytes_ = false;
    size_t                       n_tokens_    = 0;
    std::vector<std::array<int32_t, 5>> extra_; // count and ids of the symbols from n_tokens_ on

    std::vector<uint32_t>  mark_follows_; // characters that a piece has before U+2581, sorted
    std::array<bool, 128>  alone_{};
    // Bit of a first byte from 0xC0 on: some piece has such a character after, or before, the ASCII one.
    std::array<uint64_t, 128> ascii_first_{}, ascii_last_{};
    std::vector<uint64_t>  pairs_ = std::vector<uint64_t>(1);
    unsigned               pair_shift_ = 63;
    bool                   cuts_marks_ = false, cuts_pairs_ = false;
};

} // namespace kollama
