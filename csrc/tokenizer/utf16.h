// UTF-16 in the byte order of the machine: what Python reads and writes a str as the fastest.

#pragma once

#include <cstddef>
#include <string_view>

namespace kollama {

constexpr size_t NOT_UNICODE = static_cast<size_t>(-1);

// bytes as UTF-16 at out, which has room for one unit a byte; the units written, or NOT_UNICODE.
size_t utf8_to_utf16(std::string_view bytes, char16_t * out);

// The bytes that units have room for at the most, as UTF-8, and what is written beyond them.
constexpr size_t utf8_room(size_t n_units) { return n_units * 3 + 1; }

// n_units of two bytes each, which need not be aligned, as UTF-8 at out, which has utf8_room; the
// bytes written, or NOT_UNICODE where there is a lone surrogate.
size_t utf16_to_utf8(const char * units, size_t n_units, char * out);

} // namespace kollama
