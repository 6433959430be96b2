#pragma once

#include "tokenizer/zeroed_array.h"

#include <algorithm>
#include <cstring>

namespace kollama {

// What short units became. An entry of Words * 16 bytes holds a unit of up to Words * 8 - 1 bytes, and
// as many tokens as fit beside: where ids need no more than 16 bits, twice as many.
template <size_t Words> class unit_cache {
  public:
    static constexpr size_t MAX_BYTES  = Words * 8 - 1;
    static constexpr size_t MAX_TOKENS = Words * 4 - 2;
    static constexpr uint32_t ELSEWHERE = 255; // as n_tokens: too many, the larger cache may have them

    struct alignas(Words * 16) entry {
        uint64_t key[Words]; // the bytes, zeros, and in the last byte the length; all zero: none
        union {
            uint16_t narrow[MAX_TOKENS];
            int32_t  wide[MAX_TOKENS / 2];
        };
        uint32_t n_tokens;
    };

    explicit unit_cache(size_t n_vocab) : narrow_(n_vocab <= 65536), entries_(size_t{ 1 } << FIRST_BITS) {}

    // Where key may be, brought into the cache near the core. Good until the next put().
    const entry * set_of(const uint64_t * key) const {
        const entry * set = &entries_[index_of(key)];
#if defined(__GNUC__)
        __builtin_prefetch(set);
        if (Words > 2) {
            __builtin_prefetch(set + 1);
        }
#endif
        return set;
    }
    // The entry of key in its set, or null.
    static const entry * find(const entry * set, const uint64_t * key) {
        return same(set[0], key) ? set : same(set[1], key) ? set + 1 : nullptr;
    }
    static constexpr size_t READS = Words * 4; // what get() writes, whatever the number of tokens; put() reads MAX_TOKENS

    // Writes the tokens and returns how many.
    size_t get(const entry & e, int32_t * tokens) const {
        if (narrow_) {
            uint16_t ids[READS]; // all that is not key: whole registers, and what comes after the last token counts for nothing
            std::memcpy(ids, reinterpret_cast<const char *>(&e) + sizeof(e.key), sizeof(ids));
            for (size_t i = 0; i < READS; i++) {
                tokens[i] = ids[i];
            }
        } else {
            std::memcpy(tokens, e.wide, sizeof(e.wide));
        }
        return e.n_tokens;
    }
    // Room for about as many units, so that it need not grow on the way.
    void expect(size_t n_units) {
        unsigned bits = bits_;
        while (bits < LAST_BITS && (size_t{ 1 } << bits) < n_units) {
            bits++;
        }
        if (bits > bits_) {
            grow(bits);
        }
    }
    // Keeps the tokens, or that they are ELSEWHERE; then false. Reads MAX_TOKENS from tokens, whatever n.
    bool put(const uint64_t * key, const int32_t * tokens, size_t n);

  private:
    // 32 KiB to begin with (of four words 64), at most 4 MiB (8): see benchmarks/RESULTS.md.
    static constexpr unsigned FIRST_BITS = 10, LAST_BITS = 17;

    size_t index_of(const uint64_t * key) const {
        uint64_t mixed = key[0] * 0x9E3779B97F4A7C15u + key[1] * 0xC2B2AE3D27D4EB4Fu;
        if (Words > 2) {
            mixed += key[2] * 0x165667B19E3779F9u + key[Words - 1] * 0xD6E8FEB86659FD93u;
        }
        return (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15u >> (64 - bits_ + 1) << 1;
    }
    static bool same(const entry & e, const uint64_t * key) {
        uint64_t differs = 0;
        for (size_t i = 0; i < Words; i++) {
            differs |= e.key[i] ^ key[i];
        }
        return differs == 0;
    }
    void grow(unsigned bits);

    bool             narrow_;
    unsigned         bits_   = FIRST_BITS;
    size_t           n_puts_ = 0; // since the last growth
    zeroed_array<entry> entries_;
};

extern template class unit_cache<2>;
extern template class unit_cache<4>;

} // namespace kollama
