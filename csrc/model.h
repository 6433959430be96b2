#pragma once

#include "internal.h"
#include "model_file.h"
#include "servers.h"
#include "tokenizer/tokenizer.h"

#include <shared_mutex>
#include <unordered_map>

struct kollama_model : kollama::counted<KOLLAMA_HANDLE_MODEL> {
    llama_model *       handle = nullptr;
    const llama_vocab * vocab  = nullptr;
    std::string         format; // of the file: "gguf", "ggjt v3" ...
    bool                uses_mmap = false;
    int32_t             n_gpu_layers = 0;
    std::shared_ptr<kollama::servers> remote; // null: it is all on this machine
    bool                vocab_only = false;
    std::atomic<int>    n_contexts{0};
    std::atomic<int>    n_abandoned{0}; // of them closed, though their threads stand in this memory
    std::atomic<int>    n_pins{0};
    std::atomic<int>    n_loras{0};
    std::atomic<bool>   loras_stuck{false}; // a thread stopped for ever holds loras_mutex
    size_t              n_positions = SIZE_MAX; // where they are learned: ggml looks up any other past the end
    uint64_t            fingerprint = 0; // of its files; see state.h
    const uint64_t      serial = ++last_serial; // tells it from one that was at the same address

    static inline std::atomic<uint64_t> last_serial{0};

    std::shared_ptr<const kollama::tokenizer> tokenizer;

    struct shape {
        uint64_t ne[4];
    };
    std::string                            architecture;
    std::unordered_map<std::string, shape> shapes; // of all tensors
    // llama.cpp lists a model's adapters where any context of it lays out its memory.
    mutable std::shared_mutex              loras_mutex;
};

namespace kollama {

// Throws KOLLAMA_ERROR_TOKEN for an id outside the vocabulary.
void check_token(const kollama_model * model, int32_t token);

// Whether encoding with a vocabulary puts a space in front: the file's word for it, else what
// llama.cpp takes for the kind.
bool gguf_adds_space(const kollama_gguf & gguf, const llama_vocab * vocab);

} // namespace kollama
