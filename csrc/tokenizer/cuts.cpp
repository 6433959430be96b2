#include "tokenizer/cuts.h"

#include "tokenizer/bits.h"

#include <algorithm>

#if defined(__SSE2__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#    include <emmintrin.h>
#    define KOLLAMA_SSE2
#endif

namespace kollama {
namespace {

// Bit i: byte i begins a character, or could. Reads 64 bytes.
uint64_t leads(const char * p) {
#ifdef KOLLAMA_SSE2
    uint64_t bits = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p) + i);
        const __m128i lead  = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(-65)); // continuations are -128 to -65
        bits |= static_cast<uint64_t>(_mm_movemask_epi8(lead)) << (16 * i);
    }
    return bits;
#else
    uint64_t bits = 0;
    for (unsigned i = 0; i < 64; i++) {
        bits |= static_cast<uint64_t>(static_cast<signed char>(p[i]) > -65) << i;
    }
    return bits;
#endif
}

} // namespace

void cut_table::begin(size_t n_pieces) {
    // 32 to 64 bits for each piece: one wrong answer in twenty, which costs a cut and nothing else.
    unsigned bits = 14;
    while ((size_t{ 1 } << bits) < n_pieces * 32) {
        bits++;
    }
    shift_ = 64 - bits;
    pairs_.assign((size_t{ 1 } << bits) / 8, 0);
    before_mark_.clear();
    space_ = ' ';
}

void cut_table::note(std::string_view piece) {
    char_word previous = NO_CHAR;
    for (size_t at = 0, n; at < piece.size(); at += n) {
        char bytes[4] = {};
        n = std::max<size_t>(1, utf8_length(static_cast<uint8_t>(piece[at])));
        piece.copy(bytes, n, at);
        char_word word;
        std::memcpy(&word, bytes, 4);
        if (at > 0) {
            const size_t bit = bit_of(previous, word);
            pairs_[bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
            if (word == MARK_WORD && previous != MARK_WORD) {
                before_mark_.push_back(previous);
            }
        }
        previous = word;
    }
}

void cut_table::finish(rule where, bool each_mark, bool space_is_mark) {
    std::sort(before_mark_.begin(), before_mark_.end());
    before_mark_.erase(std::unique(before_mark_.begin(), before_mark_.end()), before_mark_.end());
    rule_      = where;
    each_mark_ = each_mark;
    space_     = space_is_mark ? MARK_WORD : ' ';
}

template <class Cut> uint64_t cut_table::find(const char * p, size_t n, char_word * previous, Cut && cut) const {
    uint64_t  out    = 0;
    char_word before = *previous;
    uint64_t  bits   = leads(p) & (n == BLOCK ? UINT64_MAX : (uint64_t{ 1 } << n) - 1);
    for (; bits != 0; bits &= bits - 1) {
        const unsigned  i    = lowest_bit(bits);
        const char_word here = word_at(p + i);
        out |= static_cast<uint64_t>(cut(before, here)) << i;
        before = here;
    }
    *previous = before;
    return out;
}

uint64_t cut_table::cuts(const char * p, size_t n, char_word * previous) const {
    if (rule_ == rule::between_pairs && !each_mark_) {
        return find(p, n, previous, [&](char_word left, char_word right) {
            const size_t bit = bit_of(left, right);
            return !(pairs_[bit / 8] >> bit % 8 & 1);
        });
    }
    return find(p, n, previous, [&](char_word left, char_word right) { return this->cut(left, right); });
}

bool cut_table::cut(char_word left, char_word right) const {
    if (each_mark_ && right == MARK_WORD) {
        return true;
    }
    if (rule_ == rule::between_pairs) {
        const size_t bit = bit_of(left, right);
        return !(pairs_[bit / 8] >> bit % 8 & 1);
    }
    return rule_ == rule::before_marks && right == MARK_WORD && left != MARK_WORD && left != NO_CHAR &&
           !std::binary_search(before_mark_.begin(), before_mark_.end(), left);
}

} // namespace kollama
