// A tokenizer, whole: a vocabulary, the way to encode with it, and what its tokens decode to.

#pragma once

#include "tokenizer/decode.h"
#include "tokenizer/encoder.h"

#include <functional>
#include <memory>
#include <mutex>

namespace kollama {

class byte_source;
struct legacy_vocabulary;

class tokenizer {
  public:
    vocabulary               vocab;
    std::unique_ptr<encoder> encodes; // may refer to vocab
    text_rules               text;
    bool                     native = true;   // not llama.cpp's
    std::shared_ptr<void>    keeps;           // what encodes and render need alive
    // Appends a token's bytes; where empty, the piece with U+2581 as a space, or the byte it names.
    std::function<void(int32_t, std::string &)> render;

    tokenizer()                              = default;
    tokenizer(const tokenizer &)             = delete;
    tokenizer & operator=(const tokenizer &) = delete;

    // A token's bytes. Throws KOLLAMA_ERROR_TOKEN for an id outside the vocabulary.
    std::string_view bytes(int32_t token) const { return vocab.check(token), texts().bytes(token); }

    // Threads may call these at a time.
    void encode(std::string_view text, bool add_bos, bool parse_special, token_buffer & out) const;
    const text_table & texts() const; // built at the first call

  private:
    std::unique_ptr<encoder_state> borrow() const;
    void                           give_back(std::unique_ptr<encoder_state> state) const;

    mutable std::once_flag                              texts_once_;
    mutable text_table                                  texts_;
    mutable std::mutex                                  mutex_;
    mutable std::vector<std::unique_ptr<encoder_state>> idle_;
};

// Reads a tokenizer.json, a legacy GGML .bin or a GGUF, by what the file begins with. For kinds of
// GGUF vocabulary that are not done natively, llama.cpp's own tokenizer, on a model of its own.
// model: see read_json.
std::shared_ptr<tokenizer> read_tokenizer(const std::string & path, const vocabulary * model = nullptr);

// The kinds that need no llama.cpp. What they throw does not name the file.
// model, where given, is the vocabulary that the tokenizer.json belongs to. Embeddings are often padded
// beyond the last piece: ids that model calls unused and the JSON does not name are model's pieces.
void read_json(std::string_view text, tokenizer & out, const vocabulary * model = nullptr);
void read_legacy(const byte_source & source, tokenizer & out);
void take_legacy_vocabulary(legacy_vocabulary && from, tokenizer & out);

// Throws KOLLAMA_ERROR_FORMAT with the first difference unless both have the same pieces at the same ids.
void check_same_pieces(const vocabulary & file, const vocabulary & other);

} // namespace kollama
