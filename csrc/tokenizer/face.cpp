// The C face of tokenizers.

#include "tokenizer/chars.h"
#include "tokenizer/handle.h"
#include "tokenizer/utf16.h"
#include "utf8.h"

#include <algorithm>
#include <cstring>
#include <thread>

using namespace kollama;

namespace kollama {
namespace {

// Byte offsets -> character offsets: (first, last) of each token. Spans begin in rising order, so
// one pass finds them; a span that ends inside a character takes the whole of it.
std::vector<int32_t> character_offsets(std::string_view text, const std::vector<span> & spans) {
    std::vector<int32_t> out;
    out.reserve(spans.size() * 2);
    size_t  byte = 0;
    int32_t chars = 0;
    auto starts = [&](size_t i) { return (static_cast<uint8_t>(text[i]) & 0xC0) != 0x80; };
    for (const span & where : spans) {
        for (; byte < where.first; byte++) {
            chars += starts(byte);
        }
        for (; byte > where.first; byte--) {
            chars -= starts(byte - 1);
        }
        int32_t last = chars;
        for (size_t i = where.first; i < where.last; i++) {
            last += starts(i);
        }
        out.push_back(chars);
        out.push_back(last);
    }
    return out;
}

// A text as the tokenizer takes it: as it is, or in memory that is kept for the next.
class utf8_text {
  public:
    std::string_view of(const kollama_encoded_text & text) {
        if (text.encoding != KOLLAMA_UTF16) {
            return { text.data, text.size };
        }
        const size_t n_units = text.size / 2;
        if (n_units > INT32_MAX) { // of which tokenizer::encode would complain only when all the memory was had
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("a text of %zu characters is too long for one call", n_units));
        }
        if (room_ < utf8_room(n_units)) {
            bytes_.reset(); // before there are two of them
            bytes_.reset(new char[utf8_room(n_units)]);
            room_ = utf8_room(n_units);
        }
        const size_t size = utf16_to_utf8(text.data, n_units, bytes_.get());
        if (size == NOT_UNICODE) {
            throw failure(KOLLAMA_ERROR_TOKEN, "the text has a lone surrogate");
        }
        return { bytes_.get(), size };
    }

  private:
    std::unique_ptr<char[]> bytes_;
    size_t                  room_ = 0;
};

void encode(const tokenizer & t, const kollama_encoded_text & given, const kollama_encode_params & params, int32_t ** tokens,
            size_t * n_tokens, int32_t ** offsets) {
    utf8_text              memory;
    const std::string_view text = memory.of(given);
    token_buffer           out(offsets != nullptr);
    out.reserve(text.size() / 4 + 16);
    t.encode(text, params.add_bos, params.parse_special, out);
    if (offsets) {
        const std::vector<int32_t> pairs = character_offsets(text, out.spans);
        *offsets = hand_over(pairs.data(), pairs.size());
    }
    *n_tokens = out.size();
    *tokens   = out.release();
}

// The texts are taken in runs of about this many bytes, so that threads share them evenly.
constexpr size_t RUN_BYTES = 1 << 16;

struct run {
    size_t       first, last; // texts
    token_buffer tokens;
};

void encode_batch(const tokenizer & t, const kollama_encoded_text * texts, size_t n_texts, const kollama_encode_params & params,
                  int32_t n_threads, int32_t ** tokens, size_t * ends) {
    std::vector<std::unique_ptr<run>> runs;
    for (size_t i = 0, bytes = RUN_BYTES; i < n_texts; i++) {
        if (bytes >= RUN_BYTES) {
            runs.push_back(std::make_unique<run>());
            runs.back()->first = i;
            bytes              = 0;
        }
        runs.back()->last = i + 1;
        bytes += texts[i].size + 64;
    }
    std::atomic<size_t> next{ 0 };
    std::mutex          mutex;
    kollama_status      status = KOLLAMA_OK;
    std::string         reason;
    auto work = [&] {
        utf8_text memory;
        size_t    i = 0;
        const kollama_status how = guarded([&] {
            for (size_t r; (r = next++) < runs.size();) {
                run & part = *runs[r];
                for (i = part.first; i < part.last; i++) {
                    t.encode(memory.of(texts[i]), params.add_bos, params.parse_special, part.tokens);
                    ends[i] = part.tokens.size();
                }
            }
        });
        if (how != KOLLAMA_OK) {
            next = runs.size();
            std::lock_guard<std::mutex> lock(mutex);
            status = how;
            reason = format("text %zu: %s", i, kollama_last_error());
        }
    };
    std::vector<std::thread> helpers;
    const size_t n_helpers = std::min<size_t>(static_cast<size_t>(std::max(1, n_threads)), runs.size());
    helpers.reserve(n_helpers); // a vector that cannot grow would end the process with its threads
    for (size_t i = 1; i < n_helpers; i++) {
        try {
            helpers.emplace_back(work);
        } catch (const std::system_error &) {
            break; // no more threads to be had: those that are there do it
        }
    }
    work();
    for (std::thread & helper : helpers) {
        helper.join();
    }
    if (status != KOLLAMA_OK) {
        throw failure(status, reason);
    }
    size_t total = 0;
    for (const auto & part : runs) {
        for (size_t i = part->first; i < part->last; i++) {
            ends[i] += total;
        }
        total += part->tokens.size();
    }
    int32_t * all = static_cast<int32_t *>(std::malloc((total + 1) * sizeof(int32_t)));
    if (!all) {
        throw std::bad_alloc();
    }
    size_t at = 0;
    for (const auto & part : runs) {
        std::copy(part->tokens.data(), part->tokens.data() + part->tokens.size(), all + at);
        at += part->tokens.size();
    }
    *tokens = all;
}

} // namespace
} // namespace kollama

kollama_status kollama_tokenizer_load(const char * path, kollama_tokenizer ** out) {
    return guarded([&] {
        auto handle       = std::make_unique<kollama_tokenizer>();
        handle->tokenizer = read_tokenizer(path);
        *out              = handle.release();
    });
}

void kollama_tokenizer_free(kollama_tokenizer * tokenizer) {
    delete tokenizer;
}

kollama_status kollama_encode(const kollama_tokenizer * tokenizer, const kollama_encoded_text * text,
                              const kollama_encode_params * params, int32_t ** tokens, size_t * n_tokens, int32_t ** offsets) {
    return guarded([&] { encode(*tokenizer->tokenizer, *text, *params, tokens, n_tokens, offsets); });
}

kollama_status kollama_encode_batch(const kollama_tokenizer * tokenizer, const kollama_encoded_text * texts, size_t n_texts,
                                    const kollama_encode_params * params, int32_t n_threads, int32_t ** tokens, size_t * ends) {
    return guarded([&] { encode_batch(*tokenizer->tokenizer, texts, n_texts, *params, n_threads, tokens, ends); });
}

kollama_status kollama_decode(const kollama_tokenizer * tokenizer, const int32_t * tokens, size_t n_tokens, bool skip_special,
                              kollama_text_encoding encoding, char ** memory, const char ** text, size_t * size) {
    return guarded([&] {
        const auto &      t   = *tokenizer->tokenizer;
        const text_buffer out = (encoding == KOLLAMA_UTF16 ? decode_utf16 : decode_bytes)(t.vocab, t.texts(), t.text, tokens, n_tokens,
                                                                                          skip_special);
        *memory = out.memory;
        *text   = out.memory + out.first;
        *size   = out.last - out.first;
    });
}

void kollama_tokenizer_get_info(const kollama_tokenizer * tokenizer, kollama_tokenizer_info * info) {
    const auto & t  = *tokenizer->tokenizer;
    info->n_tokens  = static_cast<int32_t>(t.vocab.size());
    info->bos       = t.vocab.bos;
    info->eos       = t.vocab.eos;
    info->add_bos   = t.vocab.add_bos;
    info->is_native = t.native;
}

bool kollama_token_is_eog(const kollama_tokenizer * tokenizer, int32_t token) {
    const auto & vocab = tokenizer->tokenizer->vocab;
    return token >= 0 && static_cast<size_t>(token) < vocab.size() && vocab.eog[static_cast<size_t>(token)];
}

bool kollama_token_piece(const kollama_tokenizer * tokenizer, int32_t token, const char ** piece, size_t * length) {
    const auto & vocab = tokenizer->tokenizer->vocab;
    if (token < 0 || static_cast<size_t>(token) >= vocab.size() || vocab.kinds[static_cast<size_t>(token)] == token_kind::none) {
        return false;
    }
    const std::string_view text = vocab.pieces[static_cast<size_t>(token)];
    *piece  = text.data();
    *length = text.size();
    return true;
}

int32_t kollama_token_id(const kollama_tokenizer * tokenizer, const char * piece, size_t length) {
    const auto &  vocab = tokenizer->tokenizer->vocab;
    const int32_t id    = vocab.ids.find({ piece, length });
    return id >= 0 && vocab.kinds[static_cast<size_t>(id)] == token_kind::none ? -1 : id;
}

kollama_status kollama_token_bytes(const kollama_tokenizer * tokenizer, int32_t token, const char ** bytes, size_t * length,
                                   bool * special) {
    return guarded([&] {
        const auto & t  = *tokenizer->tokenizer;
        const auto   id = static_cast<size_t>(token);
        if (token >= 0 && id < t.vocab.size() && t.vocab.kinds[id] == token_kind::none) {
            *bytes   = "";
            *length  = 0;
            *special = true;
            return;
        }
        const std::string_view text = t.bytes(token);
        *bytes   = text.data();
        *length  = text.size();
        *special = t.vocab.special[id];
    });
}

// ---- incremental decoder -------------------------------------------------------------------------

struct kollama_decoder : counted<KOLLAMA_HANDLE_DECODER> {
    std::shared_ptr<const tokenizer> source;
    bool                             skip_special = false;
    bool                             at_start     = true; // nothing of the text is out yet
    utf8_stream                      utf8;
    std::string                      text;
};

kollama_decoder * kollama_decoder_init(const kollama_tokenizer * tokenizer, bool skip_special) {
    auto * decoder = new (std::nothrow) kollama_decoder;
    if (decoder) {
        decoder->source       = tokenizer->tokenizer;
        decoder->skip_special = skip_special;
        decoder->utf8         = utf8_stream(tokenizer->tokenizer->text.replaces_each_byte);
    }
    return decoder;
}

void kollama_decoder_free(kollama_decoder * decoder) {
    delete decoder;
}

kollama_status kollama_decoder_push(kollama_decoder * decoder, int32_t token, const char ** text, size_t * length) {
    return guarded([&] {
        const auto & t = *decoder->source;
        decoder->text.clear();
        std::string_view bytes = t.bytes(token);
        std::string      bare;
        if (decoder->skip_special && t.vocab.special[static_cast<size_t>(token)]) {
            bytes = {};
        } else if (decoder->at_start && t.text.start == text_rules::strip::marks_of_first) {
            bytes = bare = bytes_without_marks(t.vocab, t.texts(), token);
            decoder->at_start = false;
        } else if (decoder->at_start && !bytes.empty()) {
            bytes.remove_prefix(t.text.start == text_rules::strip::one_space && bytes[0] == ' ');
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
