// Incremental UTF-8: bytes in, complete characters out.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kollama {

class utf8_stream {
  public:
    // Appends to out the characters that bytes completes. What no continuation can complete becomes
    // U+FFFD, one for each maximal part (Unicode 15, table 3-8).
    void push(std::string_view bytes, std::string & out);

    // The bytes of a character that has begun and not ended.
    std::string_view incomplete() const { return { held_, n_held_ }; }

    // Gives up on them: they become one U+FFFD.
    void flush(std::string & out);

  private:
    char   held_[4];
    size_t n_held_ = 0;
};

} // namespace kollama
