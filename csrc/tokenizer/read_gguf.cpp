#include "tokenizer/read_gguf.h"

#include "legacy/format.h"
#include "tokenizer/chars.h"
#include "tokenizer/llama_kinds.h"
#include "tokenizer/pipelines.h"

#include <cmath>
#include <cstring>

namespace kollama {
namespace {

const std::string TOKENS = "tokenizer.ggml.tokens";
const std::string SCORES = "tokenizer.ggml.scores";
const std::string TYPES  = "tokenizer.ggml.token_type";
const std::string JSON   = "tokenizer.huggingface.json"; // the GGUF specification's own key

token_kind kind_of(int32_t type) {
    switch (type) {
        case LLAMA_TOKEN_TYPE_UNKNOWN:      return token_kind::unknown;
        case LLAMA_TOKEN_TYPE_CONTROL:      return token_kind::control;
        case LLAMA_TOKEN_TYPE_USER_DEFINED: return token_kind::user_defined;
        case LLAMA_TOKEN_TYPE_BYTE:         return token_kind::byte;
        case LLAMA_TOKEN_TYPE_NORMAL:       return token_kind::normal;
        default:                            return token_kind::unused; // decodes to nothing
    }
}

// An id that the file names, where it is one; else what llama.cpp takes by default.
int32_t id_of(const kollama_gguf & gguf, const char * key, int64_t otherwise, size_t n_tokens) {
    int64_t id = otherwise >= 0 && otherwise < static_cast<int64_t>(n_tokens) ? otherwise : -1;
    if (const std::string * text = gguf.find(std::string("tokenizer.ggml.") + key)) {
        const int64_t named = std::strtoll(text->c_str(), nullptr, 10);
        id = named >= 0 && named < static_cast<int64_t>(n_tokens) ? named : id;
    }
    return static_cast<int32_t>(id);
}

bool flag_of(const kollama_gguf & gguf, const char * key, bool otherwise) {
    const std::string * text = gguf.find(std::string("tokenizer.ggml.") + key);
    return text ? *text == "true" : otherwise;
}

bool name_has(const kollama_gguf & gguf, const char * key, std::initializer_list<const char *> parts) {
    std::string name = gguf.find(key) ? *gguf.find(key) : "";
    for (char & c : name) {
        c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    for (const char * part : parts) {
        if (name.find(part) != std::string::npos) {
            return true;
        }
    }
    return false;
}

// By score. false where the vocabulary is of another kind.
bool read_scores(const byte_source & source, const kollama_gguf & gguf, tokenizer & out) {
    const std::string * model = gguf.find("tokenizer.ggml.model");
    const auto *        list  = gguf.find_array(TOKENS, GGUF_TYPE_STRING);
    if (!model || *model != "llama" || !list) {
        return false;
    }
    vocabulary & vocab = out.vocab;
    const size_t n     = list->array_count;
    vocab.pieces.reserve(n, n * 8);
    read_strings(source, *list, [&](std::string & text) {
        if (text.empty()) { // the name that llama.cpp gives it
            text = "[EMPTY_" + std::to_string(vocab.pieces.size()) + "]";
        }
        vocab.pieces.add(text);
    });
    const auto doubles = vocab.ids.build(vocab.pieces);
    if (doubles.first >= 0) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("the tokens %d and %d have the same piece", doubles.first, doubles.second));
    }
    vocab.scores.assign(n, 0.0f);
    const auto * scores  = gguf.find_array(SCORES, GGUF_TYPE_FLOAT32);
    const auto * iscores = gguf.find_array(SCORES, GGUF_TYPE_INT32);
    const auto * types   = gguf.find_array(TYPES, GGUF_TYPE_INT32);
    for (const auto * array : { scores, iscores, types }) {
        if (array && array->array_count < n) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("%s has %llu entries for %zu tokens", array->key.c_str(),
                                                       (unsigned long long) array->array_count, n));
        }
    }
    if (scores || iscores) {
        const std::vector<char> bytes = read_array(source, scores ? *scores : *iscores);
        for (size_t id = 0; id < n; id++) {
            int32_t whole;
            std::memcpy(&vocab.scores[id], bytes.data() + id * 4, 4);
            std::memcpy(&whole, bytes.data() + id * 4, 4);
            vocab.scores[id] = scores ? vocab.scores[id] : static_cast<float>(whole);
            if (std::isnan(vocab.scores[id])) {
                throw failure(KOLLAMA_ERROR_FORMAT, format("the score of token %zu is not a number", id));
            }
        }
    }
    if (const std::string * was = gguf.find("kollama.source_format"); was && *was == "ggml") {
        order_by_id(vocab.pieces, vocab.scores);
    }
    vocab.kinds.assign(n, token_kind::normal);
    if (types) {
        const std::vector<char> bytes = read_array(source, *types);
        for (size_t id = 0; id < n; id++) {
            int32_t type;
            std::memcpy(&type, bytes.data() + id * 4, 4);
            vocab.kinds[id] = kind_of(type);
        }
    }
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.bos     = id_of(gguf, "bos_token_id", 1, n);
    vocab.eos     = id_of(gguf, "eos_token_id", 2, n);
    vocab.unk     = id_of(gguf, "unknown_token_id", 0, n);
    vocab.add_bos = flag_of(gguf, "add_bos_token", true);
    vocab.literal_specials = true;
    if (const std::string * first = gguf.find("kollama.tokenizer.first_added")) { // ours: docs/convert.md
        vocab.first_added = static_cast<uint32_t>(std::min<uint64_t>(std::strtoull(first->c_str(), nullptr, 10), UINT32_MAX));
    }
    correct_kinds(vocab, [&](const char * key) { return id_of(gguf, key, -1, n); });
    const bool prefix  = flag_of(gguf, "add_space_prefix", true);
    const bool is_phi3 = name_has(gguf, "general.name", { "phi-3", "phi3" }); // llama.cpp knows these by name
    out.text.start    = prefix ? text_rules::strip::one_space : text_rules::strip::nothing;
    out.encodes       = std::make_unique<score_encoder>(vocab, specials_of(vocab, is_phi3), prefix);
    return true;
}

} // namespace

std::shared_ptr<tokenizer> read_gguf_tokenizer(const byte_source & source, const kollama_gguf & gguf, bool with_json) {
    auto scored = std::make_shared<tokenizer>();
    if (!read_scores(source, gguf, *scored)) {
        return nullptr;
    }
    const std::string * json = with_json ? gguf.find(JSON) : nullptr;
    if (!json) {
        return scored;
    }
    auto ranked = std::make_shared<tokenizer>();
    try {
        read_json(*json, *ranked, &scored->vocab);
        check_same_pieces(scored->vocab, ranked->vocab);
    } catch (const failure & e) {
        throw failure(e.status, JSON + ": " + e.what());
    }
    take_ends(scored->vocab, ranked->vocab);
    return ranked;
}

// ---- the kinds that llama.cpp does ---------------------------------------------------------------

namespace {

class llama_encoder : public encoder {
  public:
    explicit llama_encoder(const llama_vocab * vocab) : vocab_(vocab) {}

    std::unique_ptr<encoder_state> make_state() const override { return std::make_unique<encoder_state>(); }

    void encode(encoder_state &, std::string_view text, bool parse_special, token_buffer & out) const override {
        if (out.with_spans()) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "offsets are not known for this kind of vocabulary: llama.cpp reads it");
        }
        if (text.size() > INT32_MAX / 2) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("a text of %zu bytes is too long for one call", text.size()));
        }
        check_utf8(text);
        auto call = [&](size_t room) {
            return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), out.room(room), static_cast<int32_t>(room),
                                  false, parse_special);
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

  private:
    const llama_vocab * vocab_;
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

void take_ends(const vocabulary & from, vocabulary & to) {
    to.bos     = from.bos;
    to.eos     = from.eos;
    to.add_bos = from.add_bos;
    to.eog     = from.eog;
}

void take_ends(const llama_vocab * from, vocabulary & to) {
    to.bos     = llama_vocab_bos(from);
    to.eos     = llama_vocab_eos(from);
    to.add_bos = llama_vocab_get_add_bos(from);
    for (size_t id = 0; id < to.size(); id++) {
        to.eog[id] = llama_vocab_is_eog(from, static_cast<int32_t>(id));
    }
}

void wrap_llama_vocabulary(const llama_vocab * from, bool add_space_prefix, std::shared_ptr<void> keeps, tokenizer & out) {
    vocabulary & vocab = out.vocab;
    const size_t n     = static_cast<size_t>(llama_vocab_n_tokens(from));
    const bool   none  = llama_vocab_type(from) == LLAMA_VOCAB_TYPE_NONE; // it asserts where asked for a piece
    vocab.pieces.reserve(n, n * 8);
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.kinds.assign(n, none ? token_kind::none : token_kind::normal);
    for (size_t id = 0; id < n; id++) {
        const int32_t token = static_cast<int32_t>(id);
        const char *  text  = none ? nullptr : llama_vocab_get_text(from, token);
        vocab.pieces.add(text ? text : "");
        vocab.special[id] = !none && (llama_vocab_get_attr(from, token) & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN));
    }
    vocab.ids.build(vocab.pieces);
    if (!none) {
        take_ends(from, vocab);
    }
    out.native                  = false;
    out.keeps                   = std::move(keeps);
    out.text.start              = add_space_prefix ? text_rules::strip::one_space : text_rules::strip::nothing;
    out.text.replaces_each_byte = llama_vocab_type(from) != LLAMA_VOCAB_TYPE_BPE; // tokenizers' ByteLevel: maximal parts
    out.render  = [from](int32_t token, std::string & text) { append_llama_piece(from, token, text); };
    out.encodes = std::make_unique<llama_encoder>(from);
}

} // namespace kollama
