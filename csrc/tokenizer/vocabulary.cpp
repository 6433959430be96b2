#include "tokenizer/vocabulary.h"

#include <cstring>

namespace kollama {
namespace {

constexpr uint64_t ODD = 0x9E3779B97F4A7C15u; // 2^64 / golden ratio

template <class T> uint64_t load(const char * p) {
    T value;
    std::memcpy(&value, p, sizeof(value));
    return value;
}

uint64_t hash_of(std::string_view text) {
    const char * p    = text.data();
    const size_t n    = text.size();
    uint64_t     hash = n * ODD;
    auto add = [&](uint64_t part) {
        hash = (hash ^ part) * ODD;
        hash ^= hash >> 29;
    };
    if (n >= 8) { // the last eight bytes may be read twice
        for (size_t i = 0; i + 8 < n; i += 8) {
            add(load<uint64_t>(p + i));
        }
        add(load<uint64_t>(p + n - 8));
    } else if (n >= 4) {
        add(load<uint32_t>(p) << 32 | load<uint32_t>(p + n - 4));
    } else if (n > 0) {
        add(load<uint8_t>(p) << 16 | load<uint8_t>(p + n / 2) << 8 | load<uint8_t>(p + n - 1));
    }
    return hash * ODD;
}

int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

} // namespace

std::pair<int32_t, int32_t> string_index::build(const string_list & strings) {
    std::pair<int32_t, int32_t> doubles{ -1, -1 };
    unsigned bits = 4;
    while ((size_t{ 1 } << bits) < strings.size() * 2) {
        bits++;
    }
    strings_ = &strings;
    shift_   = 64 - bits;
    slots_.assign(size_t{ 1 } << bits, 0);
    const size_t mask = slots_.size() - 1;
    for (size_t i = 0; i < strings.size(); i++) {
        const uint64_t hash = hash_of(strings[i]);
        size_t         slot = hash >> shift_;
        for (; slots_[slot] != 0; slot = (slot + 1) & mask) {
            const size_t other = (slots_[slot] & UINT32_MAX) - 1;
            if (slots_[slot] >> 32 == (hash & UINT32_MAX) && strings[other] == strings[i]) {
                if (doubles.first < 0) {
                    doubles = { static_cast<int32_t>(other), static_cast<int32_t>(i) };
                }
                break;
            }
        }
        slots_[slot] = (hash & UINT32_MAX) << 32 | (i + 1);
    }
    return doubles;
}

int32_t string_index::find(std::string_view text) const {
    if (slots_.empty()) {
        return -1;
    }
    const uint64_t hash = hash_of(text);
    const size_t   mask = slots_.size() - 1;
    for (size_t slot = hash >> shift_; slots_[slot] != 0; slot = (slot + 1) & mask) {
        const size_t i = (slots_[slot] & UINT32_MAX) - 1;
        if (slots_[slot] >> 32 == (hash & UINT32_MAX) && (*strings_)[i] == text) {
            return static_cast<int32_t>(i);
        }
    }
    return -1;
}

void vocabulary::check(int32_t token) const {
    if (token < 0 || static_cast<size_t>(token) >= size() || kinds[token] == token_kind::none) {
        throw failure(KOLLAMA_ERROR_TOKEN,
                      format("token id %d is outside the vocabulary, 0 to %d", token, static_cast<int>(size()) - 1));
    }
}

int vocabulary::byte_of(std::string_view piece) {
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') {
        return -1;
    }
    const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

int32_t vocabulary::byte_id(uint8_t byte) const {
    return ids.find(format("<0x%02X>", byte));
}

} // namespace kollama
