// Blocks of ggjt v1 and v2 (and of ggmf and ggml, which are v1's) as today's.

#pragma once

#include "legacy/format.h"

namespace kollama {

// Bytes of one block in the file; 0 where the format has no such type.
size_t legacy_block_bytes(const legacy_header & header, ggml_type type);
// Whether the bytes in the file are not today's.
bool needs_repacking(const legacy_header & header, ggml_type type);
// n_blocks blocks from the file, which needs_repacking, to today's.
void repack_blocks(const legacy_header & header, ggml_type type, const uint8_t * from, uint8_t * to, size_t n_blocks);

} // namespace kollama
