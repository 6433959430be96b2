// What a GGUF header may not say, beyond what the scan looks at: numbers that llama.cpp divides by,
// allocates from, or asserts on in its worker threads, where an assertion ends the process.

#pragma once

#include "gguf_scan.h"

namespace kollama {

// Throws KOLLAMA_ERROR_FORMAT, without the name of the file. For each part of a split model.
void check_gguf(const kollama_gguf & gguf, const byte_source & source);

// No key, and no tensor, twice; no tensor without a name or elements.
void check_gguf_names(const kollama_gguf & gguf);

} // namespace kollama
