#include "utf8.h"

#include "tokenizer/chars.h"

namespace kollama {
namespace {

constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD";

bool fits(const char * held, size_t n_held, uint8_t byte) {
    return n_held == 1 ? utf8_second_fits(static_cast<uint8_t>(held[0]), byte) : byte >= 0x80 && byte <= 0xBF;
}

} // namespace

void utf8_stream::push(std::string_view bytes, std::string & out) {
    for (size_t i = 0; i < bytes.size(); i++) {
        const uint8_t byte = static_cast<uint8_t>(bytes[i]);
        if (n_held_ > 0) {
            if (fits(held_, n_held_, byte)) {
                held_[n_held_++] = bytes[i];
                if (n_held_ == utf8_length(static_cast<uint8_t>(held_[0]))) {
                    out.append(held_, n_held_);
                    n_held_ = 0;
                }
                continue;
            }
            flush(out); // and byte begins anew
        }
        const size_t length = utf8_length(byte);
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
    for (size_t i = 0; i < (each_byte_ ? n_held_ : n_held_ > 0); i++) {
        out += REPLACEMENT;
    }
    n_held_ = 0;
}

} // namespace kollama
