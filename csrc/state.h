// A sequence as bytes: a header that says of which model, build and cache it is, the token ids, and
// llama.cpp's own data of its memory.

#pragma once

#include "engine.h"

namespace kollama {

// Finds damage, not malice; several GB a second.
uint64_t checksum(const uint8_t * data, size_t size);

// What a model's file holds at some places, and its size: told apart from one of the same shape.
uint64_t file_fingerprint(const char * const * paths, size_t n_paths);

struct saved_sequence {
    std::vector<int32_t> tokens;
    size_t               n_kept = SIZE_MAX;
    const uint8_t *      data = nullptr; // llama.cpp's, in the blob
    size_t               size = 0;
};

// Throws KOLLAMA_ERROR_FORMAT where the blob is damaged, or of another model, build or kind of cache.
saved_sequence read_state(const uint8_t * blob, size_t size, const engine & e);

std::vector<uint8_t> write_state_header(const sequence & seq, size_t n_data, const engine & e);
void                 seal_state(std::vector<uint8_t> & blob); // puts the checksum in

} // namespace kollama

struct kollama_blob : kollama::counted<KOLLAMA_HANDLE_BLOB> {
    std::shared_ptr<std::vector<uint8_t>> bytes = std::make_shared<std::vector<uint8_t>>();
};
