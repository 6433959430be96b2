// The text of a unit as numbers that compare and hash fast.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kollama {

namespace keys {

struct mask_table {
    struct mask {
        uint64_t word[4];
    } of[32];

    constexpr mask_table() : of() {
        for (size_t n = 0; n < 32; n++) {
            for (size_t i = 0; i < 4; i++) {
                const size_t n_here = n <= i * 8 ? 0 : n - i * 8;
                of[n].word[i]       = n_here >= 8 ? UINT64_MAX : (uint64_t{ 1 } << n_here * 8) - 1;
            }
        }
    }
};

inline constexpr mask_table MASKS; // little-endian, as every platform with wheels is

} // namespace keys

// The n bytes at p, zeros after them, n in the last byte; n < Words * 8. Reads Words * 8 bytes where
// far says so.
template <size_t Words> void load_key(const char * p, size_t n, bool far, uint64_t * key) {
    if (far) {
        std::memcpy(key, p, Words * 8);
        for (size_t i = 0; i < Words; i++) {
            key[i] &= keys::MASKS.of[n].word[i];
        }
    } else {
        std::fill(key, key + Words, uint64_t{ 0 });
        std::memcpy(key, p, n);
    }
    key[Words - 1] |= uint64_t{ n } << 56;
}

} // namespace kollama
