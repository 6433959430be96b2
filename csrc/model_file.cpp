#include "model_file.h"

#include "gguf_check.h"
#include "internal.h"

#include <filesystem>

namespace kollama {

model_file open_model_file(const std::string & path, const legacy_options & options) {
    try {
        model_file out;
        out.bytes     = open_file(path);
        char magic[4] = {};
        if (out.bytes->size() >= sizeof(magic)) {
            out.bytes->read(0, magic, sizeof(magic));
        }
        if (!is_legacy_magic(magic)) {
            out.header = scan_gguf(*out.bytes);
            return out;
        }
        legacy_options with_name = options;
        with_name.name           = std::filesystem::u8path(path).stem().u8string();
        out.view                 = std::make_unique<gguf_view>(*out.bytes, with_name);
        out.header               = out.view->description();
        return out;
    } catch (const failure & e) {
        throw failure(e.status, path + ": " + e.what());
    }
}

model_file open_for_loading(const std::string & path, const legacy_options & options) {
    model_file out = open_model_file(path, options);
    try {
        check_gguf(out.header, out.gguf());
    } catch (const failure & e) {
        throw failure(e.status, path + ": " + e.what());
    }
    return out;
}

std::vector<std::string> other_parts(const std::string & first, const kollama_gguf & header) {
    const std::string * count = header.find("split.count");
    const long          n     = count ? std::strtol(count->c_str(), nullptr, 10) : 1;
    if (n > UINT16_MAX) {
        throw failure(KOLLAMA_ERROR_FORMAT, first + ": split.count is " + *count);
    }
    const int                n_parts = static_cast<int>(n);
    std::vector<std::string> parts;
    std::vector<char>        prefix(first.size() + 64), path(first.size() + 64);
    if (n_parts > 1 && llama_split_prefix(prefix.data(), prefix.size(), first.c_str(), 0, n_parts) == 0) {
        throw failure(KOLLAMA_ERROR_FORMAT,
                      first + format(": is the first of %d parts, but its name does not end in -00001-of-%05d.gguf", n_parts, n_parts));
    }
    for (int i = 1; i < n_parts; i++) {
        llama_split_path(path.data(), path.size(), prefix.data(), i, n_parts);
        parts.push_back(path.data());
    }
    return parts;
}

} // namespace kollama

using namespace kollama;

kollama_status kollama_gguf_open(const char * path, kollama_gguf ** out) {
    return guarded([&] { *out = new kollama_gguf(open_model_file(path).header); });
}
