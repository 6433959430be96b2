// A backend of ggml's kind "accelerator" for the matrix products that its CPU backend is slow at: the
// prompts of types it has no tiled kernel for. It computes in the memory and on the threads of the CPU.

#pragma once

#include "ggml-backend.h"

namespace kollama {

// Null where this machine's CPU has no kernels for it.
ggml_backend_reg_t product_backend();

} // namespace kollama
