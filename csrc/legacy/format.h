// The GGML files of 2023 ("ggml", "ggmf v1", "ggjt v1" to "v3") as llama.cpp's convert.py and quantize
// wrote them. Sources: llama.cpp's llama.cpp and convert.py at the commits that llama-cpp-python 0.1.48
// (ggjt v1), 0.1.50 (v2) and 0.1.78 (v3) carry.

#pragma once

#include "byte_source.h"
#include "tokenizer/vocabulary.h"

#include "ggml.h"

namespace kollama {

enum class legacy_kind { ggml, ggmf, ggjt };

// The first bytes of a file, as they lie on the disk.
bool is_legacy_magic(const char * magic);

struct legacy_header {
    legacy_kind kind    = legacy_kind::ggjt;
    uint32_t    version = 0; // 0: unversioned
    uint32_t    n_vocab = 0, n_embd = 0, n_mult = 0, n_head = 0, n_layer = 0, n_rot = 0, ftype = 0;

    std::string format_name() const; // "ggml", "ggmf v1", "ggjt v3"
    bool        has_scores() const { return kind != legacy_kind::ggml; }
    bool        has_todays_blocks() const { return kind == legacy_kind::ggjt && version == 3; }
};

struct legacy_vocabulary {
    string_list             pieces; // as GGUF has them, U+2581 for spaces
    std::vector<float>      scores; // all 0 where the file has none
    bool                    has_scores = true;
    std::vector<token_kind> kinds;
    uint32_t                first_added = UINT32_MAX; // ids from here on came from added_tokens.json
};

struct legacy_tensor {
    std::string name; // GGUF's
    ggml_type   type;
    uint64_t    n_dims, ne[2];
    uint64_t    offset; // in the file
    uint64_t    n_bytes_file;
    uint64_t    n_bytes; // in today's blocks
};

struct legacy_file {
    legacy_header              header;
    legacy_vocabulary          vocab;
    std::vector<legacy_tensor> tensors;
    uint32_t                   n_head_kv = 0, n_ff = 0;
};

// Throw KOLLAMA_ERROR_FORMAT with the offset; what they throw does not name the file.
legacy_header     read_legacy_header(source_reader & in);
legacy_vocabulary read_legacy_vocabulary(source_reader & in, const legacy_header & header);
legacy_file       scan_legacy(const byte_source & source); // all but the weights

// Scores for the pieces of a file that has none: in the order of their ids, runs of spaces last.
void order_by_id(const string_list & pieces, std::vector<float> & scores);

} // namespace kollama
