#include "tokenizer/unit_cache.h"

namespace kollama {

template <size_t Words> bool unit_cache<Words>::put(const uint64_t * key, const int32_t * tokens, size_t n) {
    const bool fits = n <= (narrow_ ? MAX_TOKENS : MAX_TOKENS / 2);
    if (n_puts_++ > (size_t{ 1 } << bits_) / 2 && bits_ < LAST_BITS) {
        grow(std::min(bits_ + 3, LAST_BITS));
    }
    entry * set = &entries_[index_of(key)];
    if (same(set[0], key)) {
        return fits;
    }
    if (set[0].key[Words - 1] != 0) {
        set[1] = set[0]; // the older of the two goes
    }
    std::copy(key, key + Words, set[0].key);
    if (narrow_) {
        for (size_t i = 0; i < MAX_TOKENS; i++) { // all of them: that costs less than to count
            set[0].narrow[i] = static_cast<uint16_t>(tokens[i]);
        }
    } else {
        std::copy(tokens, tokens + MAX_TOKENS / 2, set[0].wide);
    }
    set[0].n_tokens = fits ? static_cast<uint32_t>(n) : ELSEWHERE;
    return fits;
}

template <size_t Words> void unit_cache<Words>::grow(unsigned bits) {
    const size_t     n = size_t{ 1 } << bits_;
    zeroed_array<entry> old(size_t{ 1 } << bits);
    old.swap(entries_);
    bits_   = bits;
    n_puts_ = 0;
    for (size_t i = 0; i < n; i++) {
        if (old[i].key[Words - 1] != 0) {
            entry * set = &entries_[index_of(old[i].key)];
            (set[0].key[Words - 1] == 0 ? set[0] : set[1]) = old[i];
        }
    }
}

template class unit_cache<2>;
template class unit_cache<4>;

} // namespace kollama
