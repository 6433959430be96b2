// How many layers the devices of a model can hold.

#pragma once

#include "gguf_scan.h"

#include "ggml-backend.h"

#include <vector>

namespace kollama {

// The GPUs of this machine.
std::vector<ggml_backend_dev_t> gpu_devices();

// As many layers as fit into what is free on devices, from the last one backwards, as llama.cpp counts them: the
// output layer is one. Logs what it chose. parts: the headers of the files of a model.
int32_t fitting_layers(const std::vector<const kollama_gguf *> & parts, const std::vector<ggml_backend_dev_t> & devices);

} // namespace kollama
