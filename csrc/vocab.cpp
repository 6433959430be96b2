// Tokens <-> text over llama.cpp's vocabulary.

#include "model.h"
#include "utf8.h"

#include <algorithm>
#include <cstring>

namespace kollama {

void check_token(const kollama_model * model, int32_t token) {
    const int32_t n_vocab = llama_vocab_n_tokens(model->vocab);
    if (token < 0 || token >= n_vocab) {
        throw failure(KOLLAMA_ERROR_TOKEN, format("token id %d is outside the vocabulary, 0 to %d", token, n_vocab - 1));
    }
}

void append_piece(const kollama_model * model, int32_t token, bool skip_special, std::string & out) {
    const size_t start = out.size();
    out.resize(start + 64); // nearly every piece; llama.cpp says what the others need
    int32_t length = llama_token_to_piece(model->vocab, token, out.data() + start, 64, 0, !skip_special);
    if (length < 0) {
        out.resize(start - length);
        length = llama_token_to_piece(model->vocab, token, out.data() + start, -length, 0, !skip_special);
    }
    out.resize(start + std::max(0, length));
}

namespace {

// A file may have none (tokenizer.ggml.model "none"): llama.cpp asserts where it is asked for a piece.
bool has_vocabulary(const kollama_model * model) {
    return llama_vocab_type(model->vocab) != LLAMA_VOCAB_TYPE_NONE;
}

bool has_space_prefix(const kollama_model * model) {
    char value[8] = "";
    if (llama_model_meta_val_str(model->handle, "tokenizer.ggml.add_space_prefix", value, sizeof(value)) >= 0) {
        return std::strcmp(value, "true") == 0;
    }
    return llama_vocab_type(model->vocab) == LLAMA_VOCAB_TYPE_SPM; // llama.cpp's default for it
}

void tokenize(kollama_model * model, const char * text, size_t length, bool add_bos, bool parse_special,
              int32_t ** tokens, size_t * n_tokens) {
    if (length > INT32_MAX / 2) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("a text of %zu bytes is too long for one call", length));
    }
    const int32_t bos = llama_vocab_bos(model->vocab);
    if (add_bos && bos < 0) {
        throw failure(KOLLAMA_ERROR_TOKEN, "this vocabulary has no beginning-of-sequence token to add");
    }
    const size_t         n_bos = add_bos ? 1 : 0;
    std::vector<int32_t> ids(length + 16 + n_bos);
    auto call = [&] {
        return llama_tokenize(model->vocab, text, static_cast<int32_t>(length), ids.data() + n_bos,
                              static_cast<int32_t>(ids.size() - n_bos), false, parse_special);
    };
    int32_t n = call();
    if (n < 0 && n != INT32_MIN) {
        ids.resize(n_bos - n);
        n = call();
    }
    if (n < 0) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "the text has too many tokens for one call");
    }
    if (add_bos) {
        ids[0] = bos;
    }
    *n_tokens = n + n_bos;
    *tokens   = hand_over(ids.data(), *n_tokens);
}

void detokenize(kollama_model * model, const int32_t * tokens, size_t n_tokens, bool skip_special, char ** bytes,
                size_t * length) {
    std::string out;
    out.reserve(n_tokens * 8);
    for (size_t i = 0; i < n_tokens; i++) {
        check_token(model, tokens[i]);
        append_piece(model, tokens[i], skip_special, out);
    }
    *length = out.size();
    *bytes  = hand_over(out.data(), out.size());
}

} // namespace
} // namespace kollama

using namespace kollama;

kollama_status kollama_tokenize(kollama_model * model, const char * text, size_t length, bool add_bos, bool parse_special,
                                int32_t ** tokens, size_t * n_tokens) {
    return guarded([&] { tokenize(model, text, length, add_bos, parse_special, tokens, n_tokens); });
}

kollama_status kollama_detokenize(kollama_model * model, const int32_t * tokens, size_t n_tokens, bool skip_special,
                                  char ** bytes, size_t * length) {
    return guarded([&] { detokenize(model, tokens, n_tokens, skip_special, bytes, length); });
}

void kollama_vocab_get_info(const kollama_model * model, kollama_vocab_info * info) {
    info->bos              = llama_vocab_bos(model->vocab);
    info->eos              = llama_vocab_eos(model->vocab);
    info->add_bos          = llama_vocab_get_add_bos(model->vocab);
    info->add_space_prefix = has_space_prefix(model);
}

bool kollama_vocab_is_eog(const kollama_model * model, int32_t token) {
    return token >= 0 && token < llama_vocab_n_tokens(model->vocab) && llama_vocab_is_eog(model->vocab, token);
}

const char * kollama_vocab_piece(const kollama_model * model, int32_t token) {
    if (token < 0 || token >= llama_vocab_n_tokens(model->vocab) || !has_vocabulary(model)) {
        return nullptr;
    }
    return llama_vocab_get_text(model->vocab, token);
}

int32_t kollama_vocab_id(kollama_model * model, const char * piece, size_t length) {
    if (!has_vocabulary(model)) {
        return -1;
    }
    std::call_once(model->pieces_once, [&] {
        const int32_t n_vocab = llama_vocab_n_tokens(model->vocab);
        model->pieces.reserve(n_vocab);
        for (int32_t id = 0; id < n_vocab; id++) {
            model->pieces.emplace(llama_vocab_get_text(model->vocab, id), id); // of doubles the first
        }
    });
    const auto found = model->pieces.find(std::string_view(piece, length));
    return found == model->pieces.end() ? -1 : found->second;
}

// ---- incremental decoder -------------------------------------------------------------------------

struct kollama_decoder : counted<KOLLAMA_HANDLE_DECODER> {
    kollama_model * model;
    bool            skip_special;
    bool            at_start = true; // the space that encoding put in front is still to come
    utf8_stream     utf8;
    std::string     bytes, text;
};

kollama_decoder * kollama_decoder_init(kollama_model * model, bool skip_special) {
    auto * decoder = new (std::nothrow) kollama_decoder;
    if (decoder) {
        kollama_vocab_info info;
        kollama_vocab_get_info(model, &info);
        decoder->model        = model;
        decoder->skip_special = skip_special;
        decoder->at_start     = info.add_space_prefix;
    }
    return decoder;
}

void kollama_decoder_free(kollama_decoder * decoder) {
    delete decoder;
}

kollama_status kollama_decoder_push(kollama_decoder * decoder, int32_t token, const char ** text, size_t * length) {
    return guarded([&] {
        check_token(decoder->model, token);
        decoder->bytes.clear();
        decoder->text.clear();
        append_piece(decoder->model, token, decoder->skip_special, decoder->bytes);
        std::string_view bytes = decoder->bytes;
        if (decoder->at_start && !bytes.empty()) {
            bytes.remove_prefix(bytes[0] == ' ' ? 1 : 0);
            decoder->at_start = false;
        }
        decoder->utf8.push(bytes, decoder->text);
        *text   = decoder->text.data();
        *length = decoder->text.size();
    });
}

kollama_status kollama_decoder_flush(kollama_decoder * decoder, const char ** text, size_t * length) {
    return guarded([&] {
        decoder->text.clear();
        decoder->utf8.flush(decoder->text);
        *text   = decoder->text.data();
        *length = decoder->text.size();
    });
}
