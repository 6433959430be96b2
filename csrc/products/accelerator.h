// A backend of ggml's kind "accelerator" for matrix products that its CPU backend takes longer for: those
// of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and F16. It takes whole graphs, and has the CPU backend compute all else in them,
// in its memory and on its threads.

#pragma once

#include "ggml-backend.h"

namespace kollama {

// Null where this machine's CPU has no kernels for it.
ggml_backend_reg_t product_backend();

// Whether it computes all that the CPU does. With a GPU it leaves that to ggml.
bool product_backend_computes();

// Whether weights of this type, which ggml's CPU backend would keep in an order of its own, are better
// left as they lie in a file.
bool product_keeps_order(ggml_type type);

} // namespace kollama
