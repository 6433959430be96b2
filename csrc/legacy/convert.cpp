#include "internal.h"
#include "model_file.h"
#include "tokenizer/tokenizer.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace kollama {
namespace {

constexpr size_t CHUNK_BYTES = 4 << 20;

// A file that says why it cannot be written, and leaves its name to the caller, who may have another for it.
class output {
  public:
    explicit output(const std::string & path) {
#ifdef _WIN32
        file_ = _wfopen(std::filesystem::u8path(path).c_str(), L"wb");
#else
        file_ = std::fopen(path.c_str(), "wb");
#endif
        check(file_ != nullptr);
    }

    ~output() {
        if (file_) {
            std::fclose(file_);
        }
    }

    void write(const char * data, size_t n) { check(std::fwrite(data, 1, n, file_) == n); }

    void close() {
        std::FILE * file = file_;
        file_            = nullptr;
        check(std::fclose(file) == 0); // the last bytes may find the disk full
    }

  private:
    static void check(bool ok) {
        if (!ok) {
            throw failure(KOLLAMA_ERROR_WRITE, std::strerror(errno));
        }
    }

    std::FILE * file_ = nullptr;
};

// A tokenizer.json, once it is known to have the pieces of the file.
std::string read_json_for(const std::string & path, const model_file & file) {
    const auto other = read_tokenizer(path);
    vocabulary own;
    own.pieces = file.view->file().vocab.pieces;
    own.kinds  = file.view->file().vocab.kinds;
    try {
        check_same_pieces(own, other->vocab);
    } catch (const failure & e) {
        throw failure(e.status, path + ": does not fit the model: " + e.what());
    }
    const auto  bytes = open_file(path);
    std::string text(static_cast<size_t>(bytes->size()), '\0');
    bytes->read(0, text.data(), text.size());
    if (text.find('\0') != std::string::npos || text.find('{') == std::string::npos || text.compare(0, 4, "GGUF") == 0 ||
        is_legacy_magic(text.data())) {
        throw failure(KOLLAMA_ERROR_FORMAT, path + ": is not a tokenizer.json");
    }
    return text;
}

void convert(const std::string & path, const char * out, const kollama_convert_params & params) {
    legacy_options options{ params.rms_norm_eps };
    model_file     file = open_model_file(path, options);
    if (!file.view) {
        throw failure(KOLLAMA_ERROR_FORMAT, path + ": is a GGUF already");
    }
    if (params.tokenizer) {
        options.tokenizer_json = read_json_for(params.tokenizer, file);
        file                   = open_model_file(path, options);
    }
    const byte_source & from = file.gguf();
    output              to(out);
    std::vector<char>   chunk(CHUNK_BYTES);
    for (uint64_t done = 0; done < from.size();) {
        if (params.progress && !params.progress(static_cast<float>(done) / static_cast<float>(from.size()), params.progress_user)) {
            throw failure(KOLLAMA_ERROR_ABORTED, path + ": the conversion was stopped");
        }
        const size_t n = static_cast<size_t>(std::min<uint64_t>(chunk.size(), from.size() - done));
        from.read(done, chunk.data(), n);
        to.write(chunk.data(), n);
        done += n;
    }
    to.close();
    if (params.progress) {
        params.progress(1.0f, params.progress_user);
    }
}

} // namespace
} // namespace kollama

using namespace kollama;

kollama_status kollama_convert_legacy(const char * path, const char * out, const kollama_convert_params * params) {
    return guarded([&] { convert(path, out, *params); });
}
