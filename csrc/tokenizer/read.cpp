// Which kind of file a tokenizer comes from.

#include "gguf_check.h"
#include "model.h"
#include "tokenizer/chars.h"
#include "tokenizer/read_gguf.h"

#include <cstring>
#include <filesystem>
#include <fstream>

namespace kollama {
namespace {

namespace fs = std::filesystem;

std::string read_all(const std::string & path) {
    const fs::path  file = fs::u8path(path);
    std::error_code error;
    const uint64_t  size = fs::file_size(file, error);
    std::ifstream   stream(file, std::ios::binary);
    std::string     text;
    if (error || !stream) {
        throw failure(KOLLAMA_ERROR_IO, path + ": cannot be opened for reading");
    }
    text.resize(size);
    if (!stream.read(text.data(), static_cast<std::streamsize>(size))) {
        throw failure(KOLLAMA_ERROR_IO, path + ": reading failed");
    }
    return text;
}

std::string beginning(const std::string & path) {
    char          bytes[16] = {};
    std::ifstream stream(fs::u8path(path), std::ios::binary);
    if (!stream) {
        throw failure(KOLLAMA_ERROR_IO, path + ": cannot be opened for reading");
    }
    stream.read(bytes, sizeof(bytes));
    return std::string(bytes, static_cast<size_t>(stream.gcount()));
}

void read_gguf(const std::string & path, tokenizer & out) {
    const kollama_gguf gguf = scan_gguf(path);
    if (read_gguf_vocabulary(path, gguf, out)) {
        return;
    }
    check_gguf(gguf, path);
    llama_model_params params = llama_model_default_params();
    params.vocab_only         = true;
    guard                        g;
    std::shared_ptr<llama_model> model(llama_model_load_from_file(path.c_str(), params), llama_model_free);
    if (!model) {
        throw failure(KOLLAMA_ERROR_LOAD, path + ": " + g.errors());
    }
    const llama_vocab * vocab = llama_model_get_vocab(model.get());
    wrap_llama_vocabulary(vocab, gguf_adds_space(gguf, vocab), model, out);
}

} // namespace

std::shared_ptr<tokenizer> read_tokenizer(const std::string & path) {
    auto              out   = std::make_shared<tokenizer>();
    const std::string start = beginning(path);
    const size_t      text  = start.compare(0, 3, "\xEF\xBB\xBF") == 0 ? 3 : 0;
    const size_t      first = start.find_first_not_of(" \t\r\n", text);
    if (start.compare(0, 4, "GGUF") == 0) {
        read_gguf(path, *out);
        return out;
    }
    try {
        if (start.compare(0, 4, "lmgg") == 0 || start.compare(0, 4, "fmgg") == 0 || start.compare(0, 4, "tjgg") == 0) {
            std::ifstream   stream(fs::u8path(path), std::ios::binary);
            std::error_code error;
            read_legacy(stream, fs::file_size(fs::u8path(path), error), *out);
        } else if (first != std::string::npos && start[first] == '{') {
            read_json(read_all(path), *out);
        } else {
            throw failure(KOLLAMA_ERROR_FORMAT, start.empty() ? "the file is empty"
                                                              : "neither a tokenizer.json, a GGUF nor a GGML file of 2023");
        }
    } catch (const failure & e) {
        throw failure(e.status, path + ": " + e.what());
    }
    return out;
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
