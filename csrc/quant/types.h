// What a model can be quantized to: file types by llama-quantize's names, tensor types by ggml's.

#pragma once

#include "llama.h"

#include <string>

namespace kollama {

struct file_type {
    const char * name; // lower case
    llama_ftype  type;
};

extern const file_type FILE_TYPES[]; // ends in a null name
constexpr const char * COPY = "copy";

// Throw KOLLAMA_ERROR_ARGUMENT for an unknown name. Upper and lower case are the same.
llama_ftype find_file_type(const std::string & name);
ggml_type   find_tensor_type(const std::string & name);

bool can_quantize_to(ggml_type type);
bool can_quantize_from(ggml_type type);

} // namespace kollama
