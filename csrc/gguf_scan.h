// A GGUF header, read with every length checked against the file before it is trusted. For clear
// errors ahead of llama.cpp's loader, for the choice of the load mode, and for `inspect`.

#pragma once

#include "internal.h"

#include "gguf.h"

#include <functional>

struct kollama_gguf {
    struct entry {
        std::string key, value;
        // Of an array: the type of its elements, how many, and the file offset of the first.
        uint32_t array_type  = 0;
        uint64_t array_count = 0, array_offset = 0;
    };

    struct tensor {
        std::string name;
        ggml_type   type;
        uint32_t    n_dims;
        uint64_t    ne[4];
        uint64_t    offset; // from the start of the data section
        uint64_t    n_bytes;
    };

    uint32_t            version   = 0;
    uint64_t            alignment = 32;
    uint64_t            data_start = 0; // file offset
    std::vector<entry>  entries;
    std::vector<tensor> tensors;

    const std::string * find(const std::string & key) const;
    const entry *       find_array(const std::string & key, gguf_type type) const; // null: none of this type
};

namespace kollama {

// Throws failure: IO where the file cannot be read, FORMAT where it is not a sound GGUF.
kollama_gguf scan_gguf(const std::string & path);

// The elements of an array that the scan has found.
void read_strings(const std::string & path, const kollama_gguf::entry & array, const std::function<void(std::string &)> & take);
std::vector<char> read_array(const std::string & path, const kollama_gguf::entry & array);

} // namespace kollama
