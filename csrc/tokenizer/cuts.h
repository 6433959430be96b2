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

    void begin(size_t n_pieces);
    void note(std::string_view piece); // UTF-8
    // each_mark: before each U+2581, whatever the pieces have. space_is_mark: a space is one.
    void finish(rule where, bool each_mark, bool space_is_mark);

    static constexpr size_t BLOCK = 64;

    // Bit i: a cut before byte i of the n <= BLOCK bytes at p, of which 3 more can be read. previous is
    // the character before, and then the last one that begins in the block.
    uint64_t cuts(const char * p, size_t n, char_word * previous) const;

    // How the table sees the character that begins at p, where 4 bytes can be read.
    char_word word_at(const char * p) const {
        char_word word;
        std::memcpy(&word, p, 4); // little-endian, as every platform with wheels is
        word &= MASKS[static_cast<uint8_t>(*p) >> 4];
        return word == ' ' ? space_ : word;
    }

  private:
    // By the first four bits of a character: the bytes it has.
    static constexpr char_word MASKS[16] = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                             0xFF, 0xFF, 0xFF, 0xFF, 0xFFFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF };

    size_t bit_of(char_word left, char_word right) const {
        return (left * 0x9E3779B97F4A7C15u + right * 0xC2B2AE3D27D4EB4Fu) >> shift_;
    }
    bool cut(char_word left, char_word right) const;
    template <class Cut> uint64_t find(const char * p, size_t n, char_word * previous, Cut && cut) const;

    std::vector<uint8_t>   pairs_ = std::vector<uint8_t>(1); // a filter: it can say that a piece has two side by side where none has
    unsigned               shift_ = 61;
    std::vector<char_word> before_mark_; // characters that a piece has before U+2581, sorted
    rule                   rule_      = rule::nowhere;
    bool                   each_mark_ = false;
    char_word              space_     = ' ';
};

} // namespace kollama
