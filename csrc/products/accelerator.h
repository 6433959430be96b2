// A backend of ggml's kind "accelerator" for matrix products that its CPU backend takes longer for: prompts
// of Q4_1, Q5_0, Q5_1 and Q8_0. It computes in the memory and on the threads of the CPU.

#pragma once

#include "ggml-backend.h"

namespace kollama {

// Null where this machine's CPU has no kernels for it.
ggml_backend_reg_t product_backend();

} // namespace kollama
