// The vocabulary of a GGUF file.

#pragma once

#include "gguf_scan.h"
#include "tokenizer/tokenizer.h"

#include "llama.h"

namespace kollama {

// Of kind "llama", SentencePiece's BPE by score, natively. false for any other kind. What it throws
// does not name the file.
bool read_gguf_vocabulary(const byte_source & source, const kollama_gguf & gguf, tokenizer & out);

// Any kind, through llama.cpp's own tokenizer. keeps holds what vocab belongs to.
void wrap_llama_vocabulary(const llama_vocab * vocab, bool add_space_prefix, std::shared_ptr<void> keeps, tokenizer & out);

// Fills in bos, eos and what ends a generation from a vocabulary that llama.cpp has loaded.
void take_ends(const llama_vocab * from, vocabulary & to);

} // namespace kollama
