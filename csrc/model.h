#pragma once

#include "internal.h"

#include <mutex>
#include <unordered_map>

struct kollama_model : kollama::counted<KOLLAMA_HANDLE_MODEL> {
    llama_model *       handle = nullptr;
    const llama_vocab * vocab  = nullptr;
    bool                uses_mmap = false;
    bool                vocab_only = false;
    std::atomic<int>    n_contexts{0};
    std::atomic<int>    n_pins{0};

    // piece -> id, built at the first look-up
    std::once_flag                                pieces_once;
    std::unordered_map<std::string_view, int32_t> pieces;
};

namespace kollama {

// Throws KOLLAMA_ERROR_TOKEN for an id outside the vocabulary.
void check_token(const kollama_model * model, int32_t token);

// Appends the bytes of a token's text. skip_special leaves out control tokens.
void append_piece(const kollama_model * model, int32_t token, bool skip_special, std::string & out);

} // namespace kollama
