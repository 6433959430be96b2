// The ways from a whole text to units: special tokens, normalisers, and where U+2581 is put in front.

#pragma once

#include "tokenizer/specials.h"
#include "tokenizer/units.h"

namespace kollama {

// SentencePiece's BPE as llama.cpp does it for vocabularies of kind "llama".
class score_encoder : public encoder {
  public:
    score_encoder(const vocabulary & vocab, std::vector<special_token> specials, bool add_space_prefix);

    std::unique_ptr<encoder_state> make_state() const override;
    void encode(encoder_state & state, std::string_view text, bool parse_special, token_buffer & out) const override;

  private:
    struct state;

    void encode_around_specials(state & s, std::string_view text, bool parse_special, token_buffer & out) const;

    const vocabulary &     vocab_;
    piece_table            pieces_;
    longest_first_specials specials_;
    bool                   add_space_prefix_;
};

// One normaliser of a tokenizer.json.
struct normal_step {
    bool        prepend; // content goes in front of a text that is not empty; else it replaces pattern
    std::string pattern, content;
};

enum class mark_scheme { none, never, first, always };

struct rank_rules {
    piece_rules                pieces;
    std::vector<normal_step>   steps;
    mark_scheme                metaspace = mark_scheme::none; // the pre-tokenizer; none: there is none
    std::vector<special_token> raw, normalized;               // added tokens, by where they are looked for
    std::vector<merge_rule>    merges;
};

// A tokenizer.json's BPE as `tokenizers` does it.
class rank_encoder : public encoder {
  public:
    // Tells vocab what the normalised added tokens decode to.
    rank_encoder(vocabulary & vocab, rank_rules rules);

    std::unique_ptr<encoder_state> make_state() const override;
    void encode(encoder_state & state, std::string_view text, bool parse_special, token_buffer & out) const override;

  private:
    struct state;

    void encode_segment(state & s, std::string_view text, size_t first, size_t last, bool parse_special, token_buffer & out) const;
    void encode_words(state & s, std::string_view text, size_t first, size_t last, bool at_start, bool prefixed,
                      token_buffer & out) const;
    void normalise(state & s, std::string_view text, size_t offset, bool with_spans) const;

    const vocabulary & vocab_;
    rank_rules         rules_;
    piece_table        pieces_;
    leftmost_specials  raw_, normalized_;
    bool               prefixes_ = false; // the steps are: U+2581 in front
    bool               in_place_ = true;  // the steps change nothing but spaces and the front
};

} // namespace kollama
