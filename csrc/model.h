#pragma once

#include "internal.h"
#include "model_file.h"
#include "tokenizer/tokenizer.h"

struct kollama_model : kollama::counted<KOLLAMA_HANDLE_MODEL> {
    llama_model *       handle = nullptr;
    const llama_vocab * vocab  = nullptr;
    std::string         format; // of the file: "gguf", "ggjt v3" ...
    bool                uses_mmap = false;
    bool                vocab_only = false;
    std::atomic<int>    n_contexts{0};
    std::atomic<int>    n_abandoned{0}; // of them closed, though their threads stand in this memory
    std::atomic<int>    n_pins{0};
    size_t              n_positions = SIZE_MAX; // where they are learned: ggml looks up any other past the end
    uint64_t            fingerprint = 0; // of its files; see state.h
    const uint64_t      serial = ++last_serial; // tells it from one that was at the same address

    static inline std::atomic<uint64_t> last_serial{0};

    std::shared_ptr<const kollama::tokenizer> tokenizer;
};

namespace kollama {

// Throws KOLLAMA_ERROR_TOKEN for an id outside the vocabulary.
void check_token(const kollama_model * model, int32_t token);

// Whether encoding with a vocabulary puts a space in front: the file's word for it, else what
// llama.cpp takes for the kind.
bool gguf_adds_space(const kollama_gguf & gguf, const llama_vocab * vocab);

} // namespace kollama
