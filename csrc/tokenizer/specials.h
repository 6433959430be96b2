// Tokens that are found in the text as they stand, before anything is merged: control tokens such
// as </s>, and user-defined or added ones. The two references look for them in two ways.

#pragma once

#include "tokenizer/vocabulary.h"

#include <array>
#include <string>
#include <vector>

namespace kollama {

struct special_token {
    std::string text;
    int32_t     id;
    bool        is_special  = false; // read only where special tokens are parsed
    bool        lstrip      = false; // takes the white space before it
    bool        rstrip      = false; // and after it
    bool        single_word = false; // not inside a word
};

// A stretch of a text that is a token, or (id < 0) that is none.
struct fragment {
    size_t  first, last;
    int32_t id;
};

// Several strings looked for at once: a trie, behind a filter on the first two bytes.
class pattern_set {
  public:
    void build(const std::vector<special_token> & tokens);
    bool empty() const { return n_patterns_ == 0; }

    // The first place from p on where a pattern may begin, or end.
    const char * next(const char * p, const char * end) const;

    // Calls found(index, length) for each pattern that text begins with, the shortest first.
    template <class F> void at(const char * p, const char * end, F && found) const {
        for (uint32_t node = 0;; p++) {
            if (nodes_[node].pattern >= 0) {
                found(static_cast<size_t>(nodes_[node].pattern), nodes_[node].depth);
            }
            if (p == end || (node = child(node, static_cast<uint8_t>(*p))) == 0) {
                return;
            }
        }
    }

  private:
    struct node {
        uint32_t first_child = 0, next_sibling = 0, depth = 0;
        int32_t  pattern = -1;
        uint8_t  byte    = 0;
    };

    static constexpr size_t FEW = 8;

    // A byte that patterns begin with, and what comes after it where that is one byte. Each 16 times.
    struct beginning {
        alignas(16) char first[16], second[16], any[16]; // any: -1 where the second can be another
    };

    beginning    beginning_of(unsigned first) const;
    bool         begins(const char * p, const char * end) const;
    const char * skip_blocks(const char * p, const char * end) const;

    uint32_t child(uint32_t node, uint8_t byte) const {
        for (node = nodes_[node].first_child; node != 0 && nodes_[node].byte != byte;) {
            node = nodes_[node].next_sibling;
        }
        return node;
    }

    std::vector<node>         nodes_;
    std::array<uint64_t, 1024> pairs_{}; // bit first * 256 + second: a pattern may begin so
    std::array<bool, 256>     firsts_{};
    std::vector<beginning>    beginnings_; // where these are few
    size_t                    n_patterns_ = 0;
};

// `tokenizers`: from left to right, at each place the longest (AddedVocabulary::find_matches).
class leftmost_specials {
  public:
    void build(std::vector<special_token> tokens);
    bool empty(bool parse_special) const { return patterns_.empty() || (!parse_special && all_special_); }
    // Cuts text into fragments; none is empty. Throws KOLLAMA_ERROR_TOKEN where white space or words
    // around a token matter and text is not UTF-8.
    void split(std::string_view text, bool parse_special, std::vector<fragment> & out) const;

  private:
    std::vector<special_token> tokens_;
    pattern_set                patterns_;
    bool                       all_special_ = true, looks_around_ = false;
};

// llama.cpp: the longest token first, wherever it stands, then the next in what is left
// (llama_vocab::impl::tokenizer_st_partition).
class longest_first_specials {
  public:
    void build(std::vector<special_token> tokens); // in order of their ids
    bool empty(bool parse_special) const { return (parse_special ? all_ : plain_).patterns.empty(); }
    void split(std::string_view text, bool parse_special, std::vector<fragment> & out) const;

  private:
    struct set {
        std::vector<special_token> tokens; // in the order in which llama.cpp looks for them
        pattern_set                patterns;
        bool                       strips = false;

        void split(std::string_view text, std::vector<fragment> & out) const;
        void split_cluster(std::string_view text, size_t first, size_t last, std::vector<size_t> & which,
                           std::vector<fragment> & out) const;
    };

    set all_, plain_;
};

} // namespace kollama
