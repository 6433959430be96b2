// Bytes at offsets, and a reader that goes forward through them and never past their end.

#pragma once

#include "errors.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kollama {

// Immutable; callable from any thread.
class byte_source {
  public:
    virtual ~byte_source() = default;

    virtual uint64_t size() const = 0;
    // All n bytes, or a failure.
    virtual void read(uint64_t offset, void * to, size_t n) const = 0;
};

// Throws KOLLAMA_ERROR_IO where there is no regular file that can be read.
std::unique_ptr<byte_source> open_file(const std::string & path);
// Refers to the bytes.
std::unique_ptr<byte_source> open_memory(const void * data, size_t size);

class source_reader {
  public:
    explicit source_reader(const byte_source & source);

    uint64_t offset() const { return offset_; }
    uint64_t left() const { return source_.size() - offset_; }

    // Throws KOLLAMA_ERROR_FORMAT with the offset unless n more bytes are there.
    void need(uint64_t n, const std::string & what) const;
    void read(void * to, size_t n, const char * what);
    void skip(uint64_t n, const char * what);

    template <class T> T number(const char * what) {
        T value;
        read(&value, sizeof(value), what);
        return value;
    }

    // Throws KOLLAMA_ERROR_FORMAT: "byte N: reason".
    [[noreturn]] void fail(uint64_t at, const std::string & reason) const;

  private:
    const byte_source & source_;
    std::vector<char>   buffer_;
    uint64_t            offset_ = 0;
    uint64_t            buffer_start_ = 0; // file offset of the buffer
    size_t              filled_ = 0;
};

} // namespace kollama
