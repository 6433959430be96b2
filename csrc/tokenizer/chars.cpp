#include "tokenizer/chars.h"

#include "errors.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace kollama {
namespace {

struct range {
    uint32_t first, last;
};

constexpr range WORDS[] = {
#include "tokenizer/word_ranges.inc"
};

} // namespace

size_t valid_utf8(std::string_view text) {
    const char * p   = text.data();
    const char * end = p + text.size();
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) {
            p += 8;
            continue;
        }
        uint32_t     cp;
        const size_t n = decode_utf8(p, end, &cp);
        if (n == 0) {
            break;
        }
        p += n;
    }
    return static_cast<size_t>(p - text.data());
}

void check_utf8(std::string_view text, size_t offset) {
    const size_t valid = valid_utf8(text);
    if (valid != text.size()) {
        throw failure(KOLLAMA_ERROR_TOKEN, format("the bytes are not UTF-8: byte %zu cannot stand where it does", offset + valid));
    }
}

bool is_word(uint32_t cp) {
    const range * found = std::upper_bound(std::begin(WORDS), std::end(WORDS), cp,
                                           [](uint32_t value, const range & r) { return value < r.first; });
    return found != std::begin(WORDS) && cp <= found[-1].last;
}

bool is_space(uint32_t cp) { // White_Space
    return (cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

} // namespace kollama
