// What a vocabulary and its merges say about characters: the symbol of each, and where text may be
// cut so that no piece is cut. Immutable once built.

#pragma once

#include "tokenizer/cuts.h"
#include "tokenizer/known_pieces.h"

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

    // Hands the symbols of a unit to a merger, but for its end(). false where that is not simple: some are unknown, or
    // too many.
    bool symbolise(const char * p, const char * end, lockstep_merger & to) const;

    const cut_table &    cuts() const { return cuts_; }
    const known_pieces & known() const { return known_; }

  private:
    void   set(uint32_t cp, symbol s);
    symbol add_extra(std::vector<int32_t> ids);
    void   begin(const vocabulary & vocab, const piece_rules & rules);
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
    cut_table                           cuts_;
    known_pieces                        known_;
};

} // namespace kollama
