// GBNF, checked without a vocabulary, so that llama.cpp's parser sees no grammar that it refuses: it
// reports to stderr, recurses as deep as the text says and follows some rules for ever.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kollama {

struct gbnf {
    std::vector<std::string> tokens; // written as <text>: each must be one token of the vocabulary
    std::vector<int32_t>     ids;    // written as <[id]>
};

// Throws KOLLAMA_ERROR_ARGUMENT, with the line, where the grammar is malformed or too large, where a
// rule is missing, and where one begins with itself.
gbnf check_grammar(const std::string & text, const std::string & root);

} // namespace kollama
