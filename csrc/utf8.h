// Incremental UTF-8: bytes in, complete characters out.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kollama {

class utf8_stream {
  public:
    // Bytes that no continuation can complete become U+FFFD: one for each of them where each_byte
    // (as tokenizers' ByteFallback replaces them), else one for each maximal part of a character
    // (Unicode 15, table 3-8; as Python's and Rust's decoders).
    explicit utf8_stream(bool each_byte = false) : each_byte_(each_byte) {}

    // Appends to out the characters that bytes completes.
    void push(std::string_view bytes, std::string & out);

    // The bytes of a character that has begun and not ended.
    std::string_view incomplete() const { return { held_, n_held_ }; }

    // Gives up on them.
    void flush(std::string & out);

  private:
    bool   each_byte_;
    char   held_[4];
    size_t n_held_ = 0;
};

} // namespace kollama
