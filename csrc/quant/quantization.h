// Quantization: llama.cpp's dry run says what becomes of each tensor, a loop of our own does it.
//
// llama_model_quantize itself can be neither watched nor stopped, and ends the process where an
// assertion fails, or a thread cannot be had, while its workers run.

#pragma once

#include "gguf_scan.h"
#include "internal.h"

#include <map>

struct kollama_quantization {
    struct tensor {
        std::string name;
        ggml_type   from, to;
        int64_t     ne[4];
        size_t      part;   // which of the files
        uint64_t    offset; // in that file
        uint64_t    n_bytes_from, n_bytes_to;
        bool        needs_importance = false; // and there is none for it

        const std::vector<float> * importance = nullptr;

        int64_t n_rows() const { return ne[1] * ne[2] * ne[3]; }
    };

    struct free_gguf {
        void operator()(gguf_context * gguf) const { gguf_free(gguf); }
    };

    std::vector<std::string> parts;
    std::vector<tensor>      tensors; // as the new file has them, once planned
    uint64_t                 size_before = 0, size_after = 0;

    std::map<std::string, std::vector<float>>  importance;
    std::unique_ptr<gguf_context, free_gguf>   header; // of the new file; null until planned
};
