// The tokenizer of a GGML file of 2023.

#include "legacy/format.h"
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
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.special[0] = vocab.special[1] = vocab.special[2] = true;
    vocab.unk              = 0;
    vocab.bos              = 1;
    vocab.eos              = 2;
    vocab.eog[2]           = true;
    vocab.add_bos          = true;
    vocab.literal_specials = true;
    out.text.start         = text_rules::strip::one_space;
    out.encodes            = std::make_unique<score_encoder>(
        vocab, std::vector<special_token>{ { "<unk>", 0, true }, { "<s>", 1, true }, { "</s>", 2, true } }, true);
}

void read_legacy(const byte_source & source, tokenizer & out) {
    source_reader       in(source);
    const legacy_header header = read_legacy_header(in);
    take_legacy_vocabulary(read_legacy_vocabulary(in, header), out);
}

} // namespace kollama
