#include "tokenizer/utf16.h"

#include "tokenizer/chars.h"
#include "tokenizer/sse2.h"

#include <cstring>

namespace kollama {

size_t utf8_to_utf16(std::string_view bytes, char16_t * out) {
    const char16_t * start = out;
    const char *     end   = bytes.data() + bytes.size();
    for (const char * p = bytes.data(); p < end;) {
        uint32_t     cp = 0;
        const size_t n  = decode_utf8(p, end, &cp);
        if (n == 0) {
            return NOT_UNICODE;
        }
        p += n;
        if (cp >= 0x10000) {
            *out++ = static_cast<char16_t>(0xD800 + ((cp - 0x10000) >> 10));
            *out++ = static_cast<char16_t>(0xDC00 + (cp & 0x3FF));
        } else {
            *out++ = static_cast<char16_t>(cp);
        }
    }
    return static_cast<size_t>(out - start);
}

namespace {

uint32_t unit_at(const char * p) {
    uint16_t value;
    std::memcpy(&value, p, sizeof(value));
    return value;
}

// One or two units; false: a lone surrogate.
bool one_character(const char *& p, const char * end, char *& out) {
    uint32_t cp = unit_at(p);
    if ((cp & 0xF800) == 0xD800) {
        const uint32_t low = p + 2 < end ? unit_at(p + 2) : 0;
        if (cp >= 0xDC00 || (low & 0xFC00) != 0xDC00) {
            return false;
        }
        cp = 0x10000 + ((cp & 0x3FF) << 10 | (low & 0x3FF));
        p += 2;
    }
    p += 2;
    out += encode_utf8(cp, out);
    return true;
}

constexpr size_t BLOCK = 8; // units

#ifdef KOLLAMA_SSE2

// Of four characters below U+10000: their UTF-8, each in four bytes, and how many of those count. All
// three forms of each, and then one of them: which it is changes too often for a branch.
void four_characters(__m128i cp, uint32_t * forms, uint32_t * sizes) {
    const __m128i tail = _mm_set1_epi32(0x3F), mark = _mm_set1_epi32(0x80);
    const __m128i six    = _mm_srli_epi32(cp, 6);
    const __m128i last   = _mm_or_si128(_mm_and_si128(cp, tail), mark);
    const __m128i middle = _mm_or_si128(_mm_and_si128(six, tail), mark);
    const __m128i two    = _mm_or_si128(_mm_or_si128(six, _mm_set1_epi32(0xC0)), _mm_slli_epi32(last, 8));
    const __m128i first  = _mm_or_si128(_mm_srli_epi32(cp, 12), _mm_set1_epi32(0xE0));
    const __m128i three  = _mm_or_si128(first, _mm_or_si128(_mm_slli_epi32(middle, 8), _mm_slli_epi32(last, 16)));
    const __m128i above_one = _mm_cmpgt_epi32(cp, _mm_set1_epi32(0x7F)), above_two = _mm_cmpgt_epi32(cp, _mm_set1_epi32(0x7FF));
    const __m128i short_form = _mm_or_si128(_mm_and_si128(above_one, two), _mm_andnot_si128(above_one, cp));
    const __m128i form       = _mm_or_si128(_mm_and_si128(above_two, three), _mm_andnot_si128(above_two, short_form));
    const __m128i size       = _mm_sub_epi32(_mm_sub_epi32(_mm_set1_epi32(1), above_one), above_two); // true is -1
    _mm_storeu_si128(reinterpret_cast<__m128i *>(forms), form);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(sizes), size);
}

// Writes BLOCK units, unless there is a surrogate among them: then false.
bool whole_block(const char * p, char *& out) {
    const __m128i units      = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    const __m128i high       = _mm_and_si128(units, _mm_set1_epi16(static_cast<short>(0xF800)));
    const __m128i surrogates = _mm_cmpeq_epi16(high, _mm_set1_epi16(static_cast<short>(0xD800)));
    if (_mm_movemask_epi8(surrogates)) {
        return false;
    }
    uint32_t forms[BLOCK], sizes[BLOCK];
    four_characters(_mm_unpacklo_epi16(units, _mm_setzero_si128()), forms, sizes);
    four_characters(_mm_unpackhi_epi16(units, _mm_setzero_si128()), forms + 4, sizes + 4);
    for (size_t i = 0; i < BLOCK; i++) {
        std::memcpy(out, &forms[i], sizeof(forms[i]));
        out += sizes[i];
    }
    return true;
}

#else

bool whole_block(const char *, char *&) {
    return false;
}

#endif

} // namespace

size_t utf16_to_utf8(const char * units, size_t n_units, char * out) {
    const char * start = out;
    const char * end   = units + n_units * 2;
    for (const char * p = units; p < end;) {
        if (static_cast<size_t>(end - p) >= BLOCK * 2 && whole_block(p, out)) {
            p += BLOCK * 2;
            continue;
        }
        for (const char * stop = end - p > static_cast<ptrdiff_t>(BLOCK * 2) ? p + BLOCK * 2 : end; p < stop;) {
            if (!one_character(p, end, out)) {
                return NOT_UNICODE;
            }
        }
    }
    return static_cast<size_t>(out - start);
}

} // namespace kollama
