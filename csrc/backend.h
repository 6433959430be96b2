// What csrc asks of ggml's backends beyond llama.h.

#pragma once

#include "ggml-backend.h"

#include <memory>

namespace kollama {

struct ggml_deleter {
    void operator()(ggml_backend * backend) const { ggml_backend_free(backend); }
    void operator()(ggml_context * ctx) const { ggml_free(ctx); }
};
using ggml_backend_owner = std::unique_ptr<ggml_backend, ggml_deleter>;
using ggml_context_owner = std::unique_ptr<ggml_context, ggml_deleter>;

ggml_backend_dev_t cpu_device();

void * cpu_function_address(const char * name); // throws where there is none

// ggml's CPU functions live in the backend library that was loaded, so they are asked for by name.
template <class F> F * cpu_function(const char * name) {
    return reinterpret_cast<F *>(cpu_function_address(name));
}

// Whether there is a device that computes while the thread that asked it to goes on. Accelerators do not.
bool has_gpu();

// Whether a frame of the calling thread's stack lies in the library of that backend. Where that cannot be
// told: true.
bool in_library_of(ggml_backend_reg_t reg);

// Whether a frame of the calling thread's stack lies in a backend's library. Where that cannot be
// told: true.
bool in_backend();

} // namespace kollama
