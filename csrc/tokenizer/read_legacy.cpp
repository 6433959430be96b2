// The tokenizer of a GGML file of 2023.

#include "legacy/format.h"
#include "tokenizer/llama_kinds.h"
#include "tokenizer/pipelines.h"
#include "tokenizer/tokenizer.h"

namespace kollama {

void take_legacy_vocabulary(legacy_vocabulary && from, tokenizer & out) {
    vocabulary & vocab = out.vocab;
    const size_t n     = from.kinds.size();
    vocab.pieces       = std::move(from.pieces);
    vocab.scores       = std::move(from.scores);
    vocab.first_added  = from.first_added;
    vocab.kinds        = std::move(from.kinds);
    vocab.ids.build(vocab.pieces);
    if (!from.has_scores) {
        order_by_id(vocab.pieces, vocab.scores);
    }
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.unk              = 0;
    vocab.bos              = 1;
    vocab.eos              = 2;
    vocab.add_bos          = true;
    vocab.literal_specials = true;
    out.text.start         = text_rules::strip::one_space;
    correct_kinds(vocab, [](const char *) { return -1; }); // as of the GGUF that it would be
    out.encodes = std::make_unique<score_encoder>(vocab, specials_of(vocab, false), true);
}

void read_legacy(const byte_source & source, tokenizer & out) {
    source_reader       in(source);
    const legacy_header header = read_legacy_header(in);
    take_legacy_vocabulary(read_legacy_vocabulary(in, header), out);
}

} // namespace kollama
