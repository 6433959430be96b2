// Which kind of file a tokenizer comes from.

#include "gguf_check.h"
#include "model.h"
#include "tokenizer/chars.h"
#include "tokenizer/read_gguf.h"
#include "tokenizer/wrap_llama.h"

#include <algorithm>

namespace kollama {
namespace {

std::string beginning(const byte_source & source) {
    std::string bytes(static_cast<size_t>(std::min<uint64_t>(source.size(), 16)), '\0');
    source.read(0, bytes.data(), bytes.size());
    return bytes;
}

std::string read_all(const byte_source & source) {
    std::string text(static_cast<size_t>(source.size()), '\0');
    source.read(0, text.data(), text.size());
    return text;
}

std::shared_ptr<tokenizer> read_gguf(const std::string & path, const byte_source & source) {
    const kollama_gguf gguf = scan_gguf(source);
    if (auto native = read_gguf_tokenizer(source, gguf, true)) {
        return native;
    }
    check_gguf(gguf, source);
    llama_model_params params = llama_model_default_params();
    params.vocab_only         = true;
    guard                        g;
    std::shared_ptr<llama_model> model(llama_model_load_from_file(path.c_str(), params), llama_model_free);
    if (!model) {
        throw failure(KOLLAMA_ERROR_LOAD, g.errors());
    }
    const llama_vocab * vocab = llama_model_get_vocab(model.get());
    auto out = std::make_shared<tokenizer>();
    wrap_llama_vocabulary(vocab, gguf_adds_space(gguf, vocab), model, *out);
    return out;
}

std::shared_ptr<tokenizer> read(const std::string & path, const vocabulary * model) {
    const auto        source = open_file(path);
    const std::string start  = beginning(*source);
    const size_t      text   = start.compare(0, 3, "\xEF\xBB\xBF") == 0 ? 3 : 0;
    const size_t      first  = start.find_first_not_of(" \t\r\n", text);
    if (start.compare(0, 4, "GGUF") == 0) {
        return read_gguf(path, *source);
    }
    auto out = std::make_shared<tokenizer>();
    if (start.size() >= 4 && is_legacy_magic(start.data())) {
        read_legacy(*source, *out);
    } else if (first != std::string::npos && start[first] == '{') {
        read_json(read_all(*source), *out, model);
    } else {
        throw failure(KOLLAMA_ERROR_FORMAT, start.empty() ? "the file is empty"
                                                          : "neither a tokenizer.json, a GGUF nor a GGML file of 2023");
    }
    return out;
}

} // namespace

std::shared_ptr<tokenizer> read_tokenizer(const std::string & path, const vocabulary * model) {
    try {
        auto out = read(path, model);
        if (out->native) { // or the first decoding would wait for it; those of llama.cpp's kinds take long to ask for
            out->texts();
        }
        return out;
    } catch (const failure & e) {
        throw failure(e.status, path + ": " + e.what());
    }
}

void check_same_pieces(const vocabulary & file, const vocabulary & other) {
    // User-defined pieces of a GGUF have spaces where a tokenizer.json has U+2581.
    auto plain = [](std::string_view piece) {
        std::string out;
        for (char c : piece) {
            c == ' ' ? out += MARK : out += c;
        }
        return out;
    };
    if (file.size() != other.size()) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("the model has %zu pieces, this tokenizer %zu", file.size(), other.size()));
    }
    for (size_t id = 0; id < file.size(); id++) {
        const std::string a = plain(file.pieces[id]), b = plain(other.pieces[id]);
        if (a != b) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("piece %zu is '%s' in the model and '%s' in this tokenizer", id, a.c_str(), b.c_str()));
        }
    }
}

} // namespace kollama
