#include "tokenizer/read_gguf.h"

#include "legacy/format.h"
#include "tokenizer/chars.h"
#include "tokenizer/llama_kinds.h"
#include "tokenizer/pipelines.h"

#include "llama.h"

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

void take_ends(const vocabulary & from, vocabulary & to) {
    to.bos     = from.bos;
    to.eos     = from.eos;
    to.add_bos = from.add_bos;
    to.eog     = from.eog;
}

} // namespace kollama
