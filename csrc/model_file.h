// A model file of any format that kollama reads, as a GGUF.

#pragma once

#include "gguf_scan.h"
#include "legacy/gguf_view.h"

namespace kollama {

struct model_file {
    std::unique_ptr<byte_source> bytes;
    std::unique_ptr<gguf_view>   view;   // null: the file is a GGUF itself
    kollama_gguf                 header;

    const byte_source & gguf() const { return view ? static_cast<const byte_source &>(*view) : *bytes; }
};

// Its header, read and checked. Throws KOLLAMA_ERROR_IO or KOLLAMA_ERROR_FORMAT; the text names the file.
model_file open_model_file(const std::string & path, const legacy_options & options = {});
// The same for what llama.cpp will load: its header says nothing that would harm it (gguf_check.h).
model_file open_for_loading(const std::string & path, const legacy_options & options = {});

// The paths of a split model's further parts: llama.cpp finds them by the first one's name.
std::vector<std::string> other_parts(const std::string & first, const kollama_gguf & header);

} // namespace kollama
