// The vocabulary of a GGUF file.

#pragma once

#include "gguf_scan.h"
#include "tokenizer/tokenizer.h"

namespace kollama {

// The native tokenizer of a vocabulary of kind "llama", null for any other kind. SentencePiece's BPE
// by score; where the file carries a tokenizer.json and with_json is set, the rules of that. What it
// throws does not name the file.
std::shared_ptr<tokenizer> read_gguf_tokenizer(const byte_source & source, const kollama_gguf & gguf, bool with_json);

// Fills in bos, eos and what ends a generation: what a model was trained to begin and end with is its own.
void take_ends(const vocabulary & from, vocabulary & to);

} // namespace kollama
