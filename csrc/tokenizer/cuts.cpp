#include "tokenizer/cuts.h"

#include "tokenizer/bits.h"
#include "tokenizer/sse2.h"

#include <algorithm>

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

void cut_table::begin(size_t n_pieces, bool space_is_mark) {
    unsigned bits = 8;
    while ((size_t{ 1 } << bits) < n_pieces) {
        bits++;
    }
    shift_ = 64 - bits;
    pairs_.assign(size_t{ 1 } << bits, 0); // more than enough: see shrink()
    before_mark_.clear();
    space_is_mark_ = space_is_mark;
}

void cut_table::add_pair(char_word left, char_word right) {
    const uint64_t hash = hash_of(left, right);
    pairs_[hash >> shift_] |= bits_of(hash);
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
            add_pair(previous, word);
            if (space_is_mark_ && (previous == MARK_WORD || word == MARK_WORD)) { // text has a space for one, or both
                add_pair(previous == MARK_WORD ? ' ' : previous, word);
                add_pair(previous, word == MARK_WORD ? ' ' : word);
                add_pair(previous == MARK_WORD ? ' ' : previous, word == MARK_WORD ? ' ' : word);
            }
            if (word == MARK_WORD && previous != MARK_WORD) {
                before_mark_.push_back(previous);
            }
        }
        previous = word;
    }
}

void cut_table::finish(rule where, bool each_mark) {
    std::sort(before_mark_.begin(), before_mark_.end());
    before_mark_.erase(std::unique(before_mark_.begin(), before_mark_.end()), before_mark_.end());
    shrink();
    rule_      = where;
    each_mark_ = each_mark;
}

// Every character of a text asks the filter, so it should stay in the cache near the core: it is halved
// while at most one bit in FILL would be set. A wrong answer, of which there is then one in some
// FILL * FILL, costs a cut and nothing else.
void cut_table::shrink() {
    constexpr size_t FILL = 12;
    size_t n_set = 0;
    for (uint64_t word : pairs_) {
        n_set += count_bits(word);
    }
    for (; pairs_.size() > 8 && n_set * FILL < pairs_.size() / 2 * 64; shift_++) {
        for (size_t i = 0; i < pairs_.size() / 2; i++) {
            pairs_[i] = pairs_[2 * i] | pairs_[2 * i + 1];
        }
        pairs_.resize(pairs_.size() / 2);
    }
    pairs_.shrink_to_fit();
}

template <class Cut>
size_t cut_table::find(const char * p, size_t n, char_word * previous, uint32_t * out, Cut && cut) const {
    size_t    n_cuts = 0;
    char_word before = *previous;
    uint64_t  bits   = leads(p) & (n == BLOCK ? UINT64_MAX : (uint64_t{ 1 } << n) - 1);
    for (; bits != 0; bits &= bits - 1) {
        const uint32_t  i    = lowest_bit(bits);
        const char_word here = word_at(p + i);
        out[n_cuts] = i; // whether it is one or not: nothing to guess wrong
        n_cuts += cut(before, here);
        before = here;
    }
    *previous = before;
    return n_cuts;
}

size_t cut_table::cuts(const char * p, size_t n, char_word * previous, uint32_t * out) const {
    if (rule_ == rule::between_pairs && !each_mark_) {
        return find(p, n, previous, out, [&](char_word left, char_word right) { return !side_by_side(left, right); });
    }
    return find(p, n, previous, out, [&](char_word left, char_word right) { return this->cut(left, right); });
}

bool cut_table::cut(char_word left, char_word right) const {
    if (space_is_mark_ && right == ' ') {
        right = MARK_WORD;
    }
    if (space_is_mark_ && left == ' ') {
        left = MARK_WORD;
    }
    if (each_mark_ && right == MARK_WORD) {
        return true;
    }
    if (rule_ == rule::between_pairs) {
        return !side_by_side(left, right);
    }
    return rule_ == rule::before_marks && right == MARK_WORD && left != MARK_WORD && left != NO_CHAR &&
           !std::binary_search(before_mark_.begin(), before_mark_.end(), left);
}

} // namespace kollama
