#include "tokenizer/decode.h"

#include "tokenizer/chars.h"
#include "tokenizer/utf16.h"

#include <algorithm>
#include <cstring>

namespace kollama {
namespace {

// Growing memory for the result.
template <class T> struct growing {
    T *    data = nullptr;
    size_t size = 0, capacity = 0;

    ~growing() { std::free(data); }

    T * room(size_t n) {
        if (capacity - size < n) {
            const size_t wanted = std::max(size + n, capacity + capacity / 2);
            T *          moved  = static_cast<T *>(std::realloc(data, wanted * sizeof(T)));
            if (!moved) {
                throw std::bad_alloc();
            }
            data     = moved;
            capacity = wanted;
        }
        return data + size;
    }

    text_buffer release(size_t first) {
        room(1); // never null
        const text_buffer out{ reinterpret_cast<char *>(data), first * sizeof(T), size * sizeof(T) };
        data = nullptr;
        return out;
    }
};

bool strips_first(const text_rules & rules) {
    return rules.start == text_rules::strip::marks_of_first;
}

} // namespace

void text_table::begin(size_t n_tokens) {
    records_.reserve(n_tokens);
    bytes_.reserve(n_tokens, n_tokens * 8);
}

void text_table::add(std::string_view bytes, bool exists) {
    record   r{};
    char16_t units[16];
    r.n = exists ? record::BY_BYTES : record::ABSENT;
    if (exists && bytes.size() <= std::size(units)) {
        const size_t n = utf8_to_utf16(bytes, units);
        if (n <= std::size(r.units)) { // and not NOT_UNICODE
            std::copy(units, units + n, r.units);
            r.n = static_cast<uint16_t>(n);
        }
    }
    records_.push_back(r);
    bytes_.add(bytes);
}

std::string bytes_without_marks(const vocabulary & vocab, const text_table & table, int32_t token) {
    if (vocab.kinds[static_cast<size_t>(token)] == token_kind::byte) {
        return std::string(table.bytes(token));
    }
    std::string text(vocab.spelled(static_cast<size_t>(token)));
    for (size_t at; (at = text.find(MARK)) != std::string::npos;) {
        text.erase(at, MARK.size());
    }
    return text;
}

text_buffer decode_utf16(const vocabulary & vocab, const text_table & table, const text_rules & rules, const int32_t * tokens,
                         size_t n_tokens, bool skip_special) {
    growing<char16_t> out;
    utf8_stream       stream(rules.replaces_each_byte);
    std::string       text;
    bool              first = strips_first(rules);
    out.room(n_tokens * 4 + 16);
    auto append_text = [&] {
        out.size += utf8_to_utf16(text, out.room(text.size()));
        text.clear();
    };
    for (size_t i = 0; i < n_tokens; i++) {
        const int32_t token = tokens[i];
        if (static_cast<uint32_t>(token) >= table.size()) {
            vocab.check(token);
        }
        if (skip_special && vocab.special[static_cast<size_t>(token)]) {
            continue;
        }
        const text_table::record & r = table.utf16(token);
        if (r.n < text_table::record::BY_BYTES && !first && stream.incomplete().empty()) {
            std::memcpy(out.room(8), &r, sizeof(r));
            out.size += r.n;
            continue;
        }
        if (r.n == text_table::record::ABSENT) {
            vocab.check(token);
        }
        first ? stream.push(bytes_without_marks(vocab, table, token), text) : stream.push(table.bytes(token), text);
        first = false;
        append_text();
    }
    stream.flush(text);
    append_text();
    return out.release(rules.start == text_rules::strip::one_space && out.size > 0 && out.data[0] == u' ');
}

text_buffer decode_bytes(const vocabulary & vocab, const text_table & table, const text_rules & rules, const int32_t * tokens,
                         size_t n_tokens, bool skip_special) {
    growing<char> out;
    bool          first = strips_first(rules);
    out.room(n_tokens * 8 + 16);
    for (size_t i = 0; i < n_tokens; i++) {
        const int32_t token = tokens[i];
        vocab.check(token);
        if (skip_special && vocab.special[static_cast<size_t>(token)]) {
            continue;
        }
        const std::string_view bytes = table.bytes(token);
        if (first) {
            const std::string bare = bytes_without_marks(vocab, table, token);
            std::copy(bare.begin(), bare.end(), out.room(bare.size()));
            out.size += bare.size();
            first = false;
            continue;
        }
        std::memcpy(out.room(bytes.size()), bytes.data(), bytes.size());
        out.size += bytes.size();
    }
    return out.release(rules.start == text_rules::strip::one_space && out.size > 0 && out.data[0] == ' ');
}

} // namespace kollama
