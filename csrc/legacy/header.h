#pragma once

#include "legacy/gguf_view.h"

namespace kollama {

// The GGUF header of a legacy file, padded to where the tensors' data begins; these follow in the
// order of the file, each padded to GGUF's alignment.
std::vector<char> make_gguf_header(const legacy_file & file, const legacy_options & options);

} // namespace kollama
