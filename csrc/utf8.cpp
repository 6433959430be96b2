#include "utf8.h"

#include <cstring>

namespace kollama {
namespace {

constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD";

// Length of the character that lead begins; 0 where none can begin with it.
size_t length_of(uint8_t lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0; // a continuation, or an overlong form
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    if (lead < 0xF5) return 4;
    return 0;                  // above U+10FFFF
}

// Whether byte may follow lead as its second: the narrower ranges keep out overlong forms,
// surrogates and what lies above U+10FFFF.
bool second_fits(uint8_t lead, uint8_t byte) {
    switch (lead) {
        case 0xE0: return byte >= 0xA0 && byte <= 0xBF;
        case 0xED: return byte >= 0x80 && byte <= 0x9F;
        case 0xF0: return byte >= 0x90 && byte <= 0xBF;
        case 0xF4: return byte >= 0x80 && byte <= 0x8F;
        default:   return byte >= 0x80 && byte <= 0xBF;
    }
}

bool fits(const char * held, size_t n_held, uint8_t byte) {
    return n_held == 1 ? second_fits(static_cast<uint8_t>(held[0]), byte) : byte >= 0x80 && byte <= 0xBF;
}

} // namespace

void utf8_stream::push(std::string_view bytes, std::string & out) {
    for (size_t i = 0; i < bytes.size(); i++) {
        const uint8_t byte = static_cast<uint8_t>(bytes[i]);
        if (n_held_ > 0) {
            if (fits(held_, n_held_, byte)) {
                held_[n_held_++] = bytes[i];
                if (n_held_ == length_of(static_cast<uint8_t>(held_[0]))) {
                    out.append(held_, n_held_);
                    n_held_ = 0;
                }
                continue;
            }
            flush(out); // and byte begins anew
        }
        const size_t length = length_of(byte);
        if (length == 1) {
            out += bytes[i];
        } else if (length == 0) {
            out += REPLACEMENT;
        } else {
            held_[n_held_++] = bytes[i];
        }
    }
}

void utf8_stream::flush(std::string & out) {
    if (n_held_ > 0) {
        out += REPLACEMENT;
        n_held_ = 0;
    }
}

} // namespace kollama
