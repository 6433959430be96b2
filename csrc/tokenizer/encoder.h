// Text -> token ids, whatever the kind of vocabulary.

#pragma once

#include "tokenizer/merges.h"

#include <memory>

namespace kollama {

// Token ids on their way out, in memory that is handed over as it is; with spans, the stretch of
// the text that each stands for.
class token_buffer {
  public:
    explicit token_buffer(bool with_spans = false) : with_spans_(with_spans) {}
    ~token_buffer() { std::free(data_); }
    token_buffer(const token_buffer &)             = delete;
    token_buffer & operator=(const token_buffer &) = delete;

    // Room for n more; what is written from there on counts once advance() says so.
    int32_t * room(size_t n) {
        if (capacity_ - size_ < n) {
            grow(n);
        }
        return data_ + size_;
    }
    void advance(size_t n) { size_ += n; }
    void push(int32_t token, span where) {
        *room(1) = token;
        size_++;
        if (with_spans_) {
            spans.push_back(where);
        }
    }
    void reserve(size_t n) { room(n); }
    void clear() { size_ = 0; } // of one without spans

    size_t          size() const { return size_; }
    const int32_t * data() const { return data_; }
    bool            with_spans() const { return with_spans_; }
    int32_t *       release(); // the caller's, for kollama_free; never null

    std::vector<span> spans;

  private:
    void grow(size_t n);

    int32_t * data_     = nullptr;
    size_t    size_     = 0;
    size_t    capacity_ = 0;
    bool      with_spans_;
};

// What one thread needs to encode: its memory and its cache. Made by an encoder, used with it alone.
struct encoder_state {
    virtual ~encoder_state() = default;
};

class encoder {
  public:
    virtual ~encoder() = default;
    virtual std::unique_ptr<encoder_state> make_state() const = 0;
    // Appends the ids of text, without bos. Throws KOLLAMA_ERROR_TOKEN where it is not UTF-8.
    virtual void encode(encoder_state & state, std::string_view text, bool parse_special, token_buffer & out) const = 0;
};

} // namespace kollama
