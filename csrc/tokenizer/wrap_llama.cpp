#include "tokenizer/wrap_llama.h"

#include "tokenizer/chars.h"
#include "tokenizer/specials.h"
#include "tokenizer/text_memo.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr int SPECIAL = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN; // read only where special tokens are parsed

// A text without special tokens, or with those that llama.cpp is to find.
void append_ids(const llama_vocab * vocab, std::string_view text, bool parse_special, token_buffer & out) {
    auto call = [&](size_t room) {
        return llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), out.room(room), static_cast<int32_t>(room), false,
                              parse_special);
    };
    int32_t n = call(text.size() + 16);
    if (n < 0 && n != INT32_MIN) {
        n = call(static_cast<size_t>(-static_cast<int64_t>(n)));
    }
    if (n < 0) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "the text has too many tokens for one call");
    }
    out.advance(static_cast<size_t>(n));
}

void check_text(std::string_view text, const token_buffer & out) {
    if (out.with_spans()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "offsets are not known for this kind of vocabulary: llama.cpp reads it");
    }
    if (text.size() > INT32_MAX / 2) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("a text of %zu bytes is too long for one call", text.size()));
    }
    check_utf8(text);
}

class llama_encoder : public encoder {
  public:
    explicit llama_encoder(const llama_vocab * vocab) : vocab_(vocab) {}

    std::unique_ptr<encoder_state> make_state() const override { return std::make_unique<encoder_state>(); }

    void encode(encoder_state &, std::string_view text, bool parse_special, token_buffer & out) const override {
        check_text(text, out);
        append_ids(vocab_, text, parse_special, out);
    }

  private:
    const llama_vocab * vocab_;
};

std::vector<special_token> specials_of(const llama_vocab * vocab) {
    std::vector<special_token> out;
    for (int32_t id = 0; id < llama_vocab_n_tokens(vocab); id++) {
        const int    attr = llama_vocab_get_attr(vocab, id);
        const char * text = llama_vocab_get_text(vocab, id);
        if ((attr & (SPECIAL | LLAMA_TOKEN_ATTR_USER_DEFINED)) && text && *text) {
            special_token token{ text, id };
            token.is_special = attr & SPECIAL;
            token.lstrip     = attr & LLAMA_TOKEN_ATTR_LSTRIP;
            token.rstrip     = attr & LLAMA_TOKEN_ATTR_RSTRIP;
            out.push_back(std::move(token));
        }
    }
    return out;
}

// Byte-level BPE, whose fragments between special tokens have nothing to do with each other: those that came before need
// not be read again. llama.cpp reads 1.5 MB/s of them.
class llama_bpe_encoder : public encoder {
  public:
    explicit llama_bpe_encoder(const llama_vocab * vocab) : vocab_(vocab) { specials_.build(specials_of(vocab)); }

    std::unique_ptr<encoder_state> make_state() const override { return std::make_unique<state>(); }

    void encode(encoder_state & base, std::string_view text, bool parse_special, token_buffer & out) const override {
        check_text(text, out);
        auto & s = static_cast<state &>(base);
        s.fragments.clear();
        specials_.split(text, parse_special, s.fragments);
        for (const fragment & part : s.fragments) {
            if (part.id >= 0) {
                out.push(part.id, {});
            } else {
                append_fragment(s, text.substr(part.first, part.last - part.first), out);
            }
        }
    }

  private:
    struct state : encoder_state {
        std::vector<fragment> fragments;
        text_memo             memo;
    };

    void append_fragment(state & s, std::string_view text, token_buffer & out) const {
        if (text.size() > text_memo::MOST_TEXT) {
            append_ids(vocab_, text, false, out);
            return;
        }
        if (const std::vector<int32_t> * known = s.memo.find(text)) {
            std::copy(known->begin(), known->end(), out.room(known->size()));
            out.advance(known->size());
            return;
        }
        const size_t before = out.size();
        append_ids(vocab_, text, false, out);
        s.memo.put(text, { out.data() + before, out.data() + out.size() });
    }

    const llama_vocab *    vocab_;
    longest_first_specials specials_;
};

void append_llama_piece(const llama_vocab * vocab, int32_t token, std::string & out) {
    out.resize(64); // nearly every piece; llama.cpp says what the others need
    int32_t length = llama_token_to_piece(vocab, token, out.data(), static_cast<int32_t>(out.size()), 0, true);
    if (length < 0) {
        out.resize(static_cast<size_t>(-length));
        length = llama_token_to_piece(vocab, token, out.data(), -length, 0, true);
    }
    out.resize(static_cast<size_t>(std::max(0, length)));
}

} // namespace

void take_ends(const llama_vocab * from, vocabulary & to) {
    to.bos     = llama_vocab_bos(from);
    to.eos     = llama_vocab_eos(from);
    to.add_bos = llama_vocab_get_add_bos(from);
    for (size_t id = 0; id < to.size(); id++) {
        to.eog[id] = llama_vocab_is_eog(from, static_cast<int32_t>(id));
    }
}

void wrap_llama_vocabulary(const llama_vocab * from, bool add_space_prefix, std::shared_ptr<void> keeps, tokenizer & out) {
    vocabulary & vocab  = out.vocab;
    const size_t n      = static_cast<size_t>(llama_vocab_n_tokens(from));
    const auto   type   = llama_vocab_type(from);
    const bool   none   = type == LLAMA_VOCAB_TYPE_NONE; // it asserts where asked for a piece
    const bool   is_bpe = type == LLAMA_VOCAB_TYPE_BPE;
    vocab.pieces.reserve(n, n * 8);
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.kinds.assign(n, none ? token_kind::none : token_kind::normal);
    for (size_t id = 0; id < n; id++) {
        const int32_t token = static_cast<int32_t>(id);
        const char *  text  = none ? nullptr : llama_vocab_get_text(from, token);
        vocab.pieces.add(text ? text : "");
        vocab.special[id] = !none && (llama_vocab_get_attr(from, token) & SPECIAL);
    }
    vocab.ids.build(vocab.pieces);
    if (!none) {
        take_ends(from, vocab);
    }
    out.native                  = false;
    out.keeps                   = std::move(keeps);
    out.text.start              = add_space_prefix ? text_rules::strip::one_space : text_rules::strip::nothing;
    out.text.replaces_each_byte = !is_bpe; // tokenizers' ByteLevel: maximal parts
    out.render                  = [from](int32_t token, std::string & text) { append_llama_piece(from, token, text); };
    if (is_bpe) {
        out.encodes = std::make_unique<llama_bpe_encoder>(from);
    } else {
        out.encodes = std::make_unique<llama_encoder>(from);
    }
}

} // namespace kollama
