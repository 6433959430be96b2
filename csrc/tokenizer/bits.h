// Bits of a word: their places, where it is not zero, and their number.

#pragma once

#include <cstdint>

#ifdef _MSC_VER
#    include <intrin.h>
#endif

namespace kollama {

inline uint32_t lowest_bit(uint64_t bits) {
#ifdef _MSC_VER
    unsigned long index;
    _BitScanForward64(&index, bits);
    return index;
#else
    return static_cast<uint32_t>(__builtin_ctzll(bits));
#endif
}

inline uint32_t highest_bit(uint32_t bits) {
#ifdef _MSC_VER
    unsigned long index;
    _BitScanReverse(&index, bits);
    return index;
#else
    return 31u - static_cast<uint32_t>(__builtin_clz(bits));
#endif
}

inline uint32_t count_bits(uint64_t bits) {
    uint32_t n = 0;
    for (; bits != 0; bits &= bits - 1) {
        n++;
    }
    return n;
}

} // namespace kollama
