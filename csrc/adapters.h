// What changes a model while it runs: LoRA adapters, which several contexts may share, and control
// vectors, of which a context has its own.

#pragma once

#include "model.h"

#include <shared_mutex>

namespace kollama {

// Freed with its last user: a handle of the caller's, or a context.
struct lora : counted<KOLLAMA_HANDLE_LORA> {
    kollama_model *                          model;
    llama_adapter_lora *                     handle      = nullptr;
    uint64_t                                 fingerprint = 0; // of its file
    float                                    alpha       = 0;
    size_t                                   n_tensors   = 0;
    std::vector<std::pair<std::string, std::string>> metadata;

    explicit lora(kollama_model * model) : model(model) { ++model->n_loras; }
    lora(const lora &) = delete;
    ~lora();
};

struct scaled_lora {
    std::shared_ptr<lora> adapter;
    float                 scale;
};

// Throws KOLLAMA_ERROR_FORMAT where the file is no adapter of this model.
std::shared_ptr<lora> load_lora(kollama_model * model, const char * path);

} // namespace kollama

struct kollama_lora {
    std::shared_ptr<kollama::lora> state;
};
