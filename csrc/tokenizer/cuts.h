// Where text can be cut so that no piece is cut: into units, which are then encoded one by one. Most
// are parts of words, short, and come again and again.

#pragma once

#include "tokenizer/chars.h"

#include <cstring>
#include <vector>

namespace kollama {

// The bytes of a character as one number, whatever its place in Unicode.
using char_word = uint32_t;

constexpr char_word MARK_WORD = 0x8196E2; // U+2581
constexpr char_word NO_CHAR   = 0;        // before a text; no piece has NUL beside another character's bytes

class cut_table {
  public:
    enum class rule {
        nowhere,
        before_marks, // before a run of U+2581, unless a piece has the character before it and U+2581
        between_pairs // where no piece has the two characters side by side
    };

    void begin(size_t n_pieces, bool space_is_mark);
    void note(std::string_view piece); // UTF-8
    // each_mark: before each U+2581, whatever the pieces have.
    void finish(rule where, bool each_mark);

    static constexpr size_t BLOCK = 64;

    // Writes where in the n <= BLOCK bytes at p, of which BLOCK + 3 can be read, to cut: before which of them.
    // Returns how many; there is room for BLOCK. previous is the character before, and then the last one that begins in the block.
    size_t cuts(const char * p, size_t n, char_word * previous, uint32_t * out) const;

  private:
    // By the first four bits of a character: the bytes it has.
    static constexpr char_word MASKS[16] = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                             0xFF, 0xFF, 0xFF, 0xFF, 0xFFFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF };

    // The character that begins at p, where 4 bytes can be read.
    static char_word word_at(const char * p) {
        char_word word;
        std::memcpy(&word, p, 4); // little-endian, as every platform with wheels is
        return word & MASKS[static_cast<uint8_t>(*p) >> 4];
    }

    // Two bits of one word stand for a pair.
    static uint64_t hash_of(char_word left, char_word right) {
        return (uint64_t{ left } << 32 | right) * 0x9E3779B97F4A7C15u;
    }
    static uint64_t bits_of(uint64_t hash) {
        return uint64_t{ 1 } << (hash >> 32 & 63) | uint64_t{ 1 } << (hash >> 38 & 63);
    }
    bool side_by_side(char_word left, char_word right) const {
        const uint64_t hash = hash_of(left, right);
        const uint64_t word = pairs_[hash >> shift_];
        return (word >> (hash >> 32 & 63)) & (word >> (hash >> 38 & 63)) & 1;
    }
    bool cut(char_word left, char_word right) const;
    void add_pair(char_word left, char_word right);
    void shrink();
    template <class Cut> size_t find(const char * p, size_t n, char_word * previous, uint32_t * out, Cut && cut) const;

    std::vector<uint64_t>  pairs_ = std::vector<uint64_t>(2); // a filter: it can say that a piece has two side by side where none has
    unsigned               shift_ = 63;
    std::vector<char_word> before_mark_; // characters that a piece has before U+2581, sorted
    rule                   rule_          = rule::nowhere;
    bool                   each_mark_     = false;
    bool                   space_is_mark_ = false;
};

} // namespace kollama
