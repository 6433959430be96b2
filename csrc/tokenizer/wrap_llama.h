// Vocabularies of kinds that llama.cpp's own tokenizer reads.

#pragma once

#include "tokenizer/tokenizer.h"

#include "llama.h"

namespace kollama {

// Any kind. keeps holds what vocab belongs to.
void wrap_llama_vocabulary(const llama_vocab * vocab, bool add_space_prefix, std::shared_ptr<void> keeps, tokenizer & out);

// Fills in bos, eos and what ends a generation: what a model was trained to begin and end with is its own.
void take_ends(const llama_vocab * from, vocabulary & to);

} // namespace kollama
