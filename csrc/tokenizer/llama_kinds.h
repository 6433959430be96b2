// What llama.cpp makes of the tokens of a vocabulary of kind "llama".

#pragma once

#include "tokenizer/specials.h"
#include "tokenizer/vocabulary.h"

#include <functional>

namespace kollama {

// Gives the kind "control" to tokens whose text says that they are, whatever the file says, and fills
// in `eog` and `special`. named: the id that the file gives for a key such as "eot_token_id", or -1.
void correct_kinds(vocabulary & vocab, const std::function<int32_t(const char *)> & named);

// Those that are found in text before anything is merged. Phi-3's take the white space after them.
std::vector<special_token> specials_of(const vocabulary & vocab, bool is_phi3);

} // namespace kollama
