// Token ids -> text.

#pragma once

#include "tokenizer/vocabulary.h"
#include "utf8.h"

namespace kollama {

// What each token decodes to: its bytes, and where they are few and whole characters, their UTF-16
// beside each other in one 16-byte record, which is all that decoding to a str has to read.
class text_table {
  public:
    void begin(size_t n_tokens);
    void add(std::string_view bytes, bool exists); // in order of the ids
    size_t size() const { return bytes_.size(); }

    std::string_view bytes(int32_t token) const { return bytes_[static_cast<size_t>(token)]; }

    struct record {
        static constexpr uint16_t BY_BYTES = 8, ABSENT = 9;

        char16_t units[7];
        uint16_t n; // units; BY_BYTES: look at the bytes; ABSENT: no such token
    };

    const record & utf16(int32_t token) const { return records_[static_cast<size_t>(token)]; }

  private:
    string_list         bytes_;
    std::vector<record> records_;
};

// How the text of several tokens differs from their texts put together.
struct text_rules {
    enum class strip { nothing, one_space, marks_of_first } start = strip::nothing;
    bool replaces_each_byte = true; // see utf8_stream
};

// Bytes in memory of their own, for kollama_free.
struct text_buffer {
    char * memory = nullptr;
    size_t first = 0, last = 0;
};

// Native-endian UTF-16, bytes that are not valid replaced.
text_buffer decode_utf16(const vocabulary & vocab, const text_table & table, const text_rules & rules, const int32_t * tokens,
                         size_t n_tokens, bool skip_special);
// The bytes as the tokens have them.
text_buffer decode_bytes(const vocabulary & vocab, const text_table & table, const text_rules & rules, const int32_t * tokens,
                         size_t n_tokens, bool skip_special);

// A token's bytes without the marks that stand for spaces.
std::string bytes_without_marks(const vocabulary & vocab, const text_table & table, int32_t token);

} // namespace kollama
