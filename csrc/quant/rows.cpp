// Rows of floats -> blocks of a ggml type.

#include "internal.h"

#include <cmath>
#include <cstring>

using namespace kollama;

namespace {

ggml_type type_of(const char * name) {
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const char * known = ggml_type_name(static_cast<ggml_type>(type));
        if (known && std::strcmp(known, name) == 0 && ggml_blck_size(static_cast<ggml_type>(type)) > 0) {
            return static_cast<ggml_type>(type);
        }
    }
    throw failure(KOLLAMA_ERROR_ARGUMENT, format("there is no tensor type '%s'", name));
}

} // namespace

kollama_status kollama_row_bytes(const char * type, size_t n_per_row, size_t * n_bytes) {
    return guarded([&] {
        const ggml_type to    = type_of(type);
        const size_t    block = static_cast<size_t>(ggml_blck_size(to));
        if (n_per_row == 0 || n_per_row % block != 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("a row of %zu values cannot be %s, which comes in blocks of %zu", n_per_row,
                                                         type, block));
        }
        *n_bytes = ggml_row_size(to, static_cast<int64_t>(n_per_row));
    });
}

kollama_status kollama_quantize_rows(const char * type, const float * src, size_t n_rows, size_t n_per_row, void * dst) {
    return guarded([&] {
        const ggml_type to = type_of(type);
        const bool plain   = to == GGML_TYPE_F32 || to == GGML_TYPE_F16 || to == GGML_TYPE_BF16;
        if (!plain && (!ggml_is_quantized(to) || ggml_quantize_requires_imatrix(to) || to == GGML_TYPE_Q8_1 || to == GGML_TYPE_Q8_K)) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("floats alone do not make a tensor of type '%s'", type));
        }
        // A block can hide a NaN, so what goes in is checked, not only what comes out.
        if (!std::all_of(src, src + n_rows * n_per_row, [](float value) { return std::isfinite(value); })) {
            throw failure(KOLLAMA_ERROR_FORMAT, "has values that are infinite or not a number");
        }
        const size_t n_bytes = ggml_quantize_chunk(to, src, dst, 0, static_cast<int64_t>(n_rows), static_cast<int64_t>(n_per_row),
                                                   nullptr);
        if (!ggml_validate_row_data(to, dst, n_bytes)) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("has values too large for %s", type));
        }
    });
}
