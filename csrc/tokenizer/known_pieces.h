// Units that are a piece and become that one token, found without merging. Of the units that a text has
// for the first time, near half are.

#pragma once

#include "tokenizer/merges.h"

namespace kollama {

class piece_table;

class known_pieces {
  public:
    static constexpr size_t MAX_BYTES = 12; // four Hangul syllables, or a space and three

    // Merges every short piece once, and keeps those that become themselves.
    void build(const vocabulary & vocab, const piece_table & pieces);

    // A cache line.
    struct alignas(64) line {
        struct {
            uint64_t first; // 8 bytes, zeros after the last
            uint32_t rest;
            uint32_t what;  // length << 28 | id; 0: none
        } entries[4];
    };
    static_assert(SYMBOL_BITS <= 28, "an id and a length are one word");

    // Where a unit's key (see units.cpp) may be, brought into the cache near the core.
    const line * line_of(const uint64_t * key) const {
        const uint64_t mixed = key[0] * 0x9E3779B97F4A7C15u + key[1] * 0xC2B2AE3D27D4EB4Fu;
        const line *   at    = &lines_[((mixed ^ mixed >> 29) * 0x9E3779B97F4A7C15u >> 32) * n_lines_ >> 32];
#if defined(__GNUC__)
        __builtin_prefetch(at);
#endif
        return at;
    }
    // The id of a unit of at most MAX_BYTES, or -1.
    static int32_t find(const line * at, const uint64_t * key) {
        int32_t id = -1;
        for (const auto & e : at->entries) {
            const uint64_t length = uint64_t{ e.what } >> 28 << 56;
            const bool     same   = ((e.first ^ key[0]) | ((length | e.rest) ^ key[1])) == 0;
            id = same ? static_cast<int32_t>(e.what & 0xFFFFFFF) : id;
        }
        return id;
    }

  private:
    void put(const uint64_t * key, int32_t id);

    uint64_t           n_lines_ = 0;
    zeroed_array<line> lines_ = zeroed_array<line>(1);
};

} // namespace kollama
