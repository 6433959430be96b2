// Places of bits in a word that is not zero.

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

} // namespace kollama
