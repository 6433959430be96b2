// UTF-8 and UTF-16, character by character.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kollama {

constexpr std::string_view MARK    = "\xE2\x96\x81"; // U+2581, which stands for a space in pieces
constexpr uint32_t         MARK_CP = 0x2581;

// Bytes of the character that lead begins; 0 where none can begin with it.
inline size_t utf8_length(uint8_t lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0; // a continuation, or an overlong form
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    if (lead < 0xF5) return 4;
    return 0; // above U+10FFFF
}

// Whether byte may follow lead as its second: the narrower ranges keep out overlong forms,
// surrogates and what lies above U+10FFFF.
inline bool utf8_second_fits(uint8_t lead, uint8_t byte) {
    switch (lead) {
        case 0xE0: return byte >= 0xA0 && byte <= 0xBF;
        case 0xED: return byte >= 0x80 && byte <= 0x9F;
        case 0xF0: return byte >= 0x90 && byte <= 0xBF;
        case 0xF4: return byte >= 0x80 && byte <= 0x8F;
        default:   return byte >= 0x80 && byte <= 0xBF;
    }
}

// The character at the start of [p, end) and its length in bytes; 0 where it is not valid UTF-8.
inline size_t decode_utf8(const char * p, const char * end, uint32_t * cp) {
    const uint8_t * s = reinterpret_cast<const uint8_t *>(p);
    const size_t    n = utf8_length(s[0]);
    if (n == 1) {
        *cp = s[0];
        return 1;
    }
    if (n == 0 || n > static_cast<size_t>(end - p) || !utf8_second_fits(s[0], s[1])) {
        return 0;
    }
    if (n == 2) {
        *cp = (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu);
        return 2;
    }
    if ((s[2] & 0xC0) != 0x80) {
        return 0;
    }
    if (n == 3) {
        *cp = (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
        return 3;
    }
    if ((s[3] & 0xC0) != 0x80) {
        return 0;
    }
    *cp = (s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
    return 4;
}

// Writes up to 4 bytes and returns how many.
inline size_t encode_utf8(uint32_t cp, char * out) {
    if (cp < 0x80) {
        out[0] = static_cast<char>(cp);
        return 1;
    }
    if (cp < 0x800) {
        out[0] = static_cast<char>(0xC0 | cp >> 6);
        out[1] = static_cast<char>(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = static_cast<char>(0xE0 | cp >> 12);
        out[1] = static_cast<char>(0x80 | (cp >> 6 & 0x3F));
        out[2] = static_cast<char>(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = static_cast<char>(0xF0 | cp >> 18);
    out[1] = static_cast<char>(0x80 | (cp >> 12 & 0x3F));
    out[2] = static_cast<char>(0x80 | (cp >> 6 & 0x3F));
    out[3] = static_cast<char>(0x80 | (cp & 0x3F));
    return 4;
}

inline void append_utf8(uint32_t cp, std::string & out) {
    char bytes[4];
    out.append(bytes, encode_utf8(cp, bytes));
}

// Where text stops being UTF-8; text.size() where it never does.
size_t valid_utf8(std::string_view text);
// Throws KOLLAMA_ERROR_TOKEN unless it is UTF-8. offset: where it begins in the caller's text.
void check_utf8(std::string_view text, size_t offset = 0);

// The Unicode properties that the word and space classes of the Rust regex crate are made of
// (UTS #18): what `tokenizers` goes by around an added token.
bool is_word(uint32_t cp);
bool is_space(uint32_t cp);

} // namespace kollama
