// A GGUF header, read with every length checked against the file before it is trusted. For clear
// errors ahead of llama.cpp's loader, for the choice of the load mode, and for `inspect`.

#pragma once

#include "byte_source.h"

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

    std::string         format; // "gguf", or what the file was before it was seen as one: "ggjt v3"
    uint32_t            version   = 0;
    uint64_t            alignment = 32;
    uint64_t            data_start = 0; // file offset
    std::vector<entry>  entries;
    std::vector<tensor> tensors;

    const std::string * find(const std::string & key) const;
    const entry *       find_array(const std::string & key, gguf_type type) const; // null: none of this type
};

namespace kollama {

// Throw KOLLAMA_ERROR_FORMAT with the offset; what they throw does not name the file.
kollama_gguf scan_gguf(const byte_source & source);

// The elements of an array that the scan has found.
void read_strings(const byte_source & source, const kollama_gguf::entry & array, const std::function<void(std::string &)> & take);
std::vector<char> read_array(const byte_source & source, const kollama_gguf::entry & array);

} // namespace kollama
