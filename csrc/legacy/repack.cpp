#include "legacy/repack.h"

#include <cstring>

namespace kollama {
namespace {

constexpr size_t QUANTS = 16; // bytes of 32 four-bit values

// What a block of the file begins with: 32-bit or 16-bit scales, then the bits that do not change.
struct layout {
    size_t n_scales;     // d, or d and m
    size_t scale_bytes;  // each
    size_t n_high;       // bytes of qh
    bool   has_nibbles;  // else 32 signed bytes
};

layout layout_of(const legacy_header & header, ggml_type type) {
    // Q5_0 and Q5_1 came with 16-bit scales; v3 gave them to the others.
    const size_t scale = header.has_todays_blocks() ? 2 : 4;
    switch (type) {
        case GGML_TYPE_Q4_0: return { 1, scale, 0, true };
        case GGML_TYPE_Q4_1: return { 2, scale, 0, true };
        case GGML_TYPE_Q5_0: return { 1, 2, 4, true };
        case GGML_TYPE_Q5_1: return { 2, 2, 4, true };
        default:             return { 1, scale, 0, false }; // Q8_0
    }
}

bool has_split_nibbles(const legacy_header & header) {
    return header.kind == legacy_kind::ggjt && header.version >= 2;
}

// Byte j of the file holds elements 2j and 2j + 1; today's holds j and j + 16.
void split_nibbles(const uint8_t * from, uint8_t * to) {
    for (size_t j = 0; j < QUANTS / 2; j++) {
        const uint8_t a = from[j], b = from[j + QUANTS / 2]; // elements 2j, 2j + 1 and those 16 further
        to[2 * j]     = static_cast<uint8_t>((a & 0x0F) | (b & 0x0F) << 4);
        to[2 * j + 1] = static_cast<uint8_t>(a >> 4 | (b & 0xF0));
    }
}

} // namespace

size_t legacy_block_bytes(const legacy_header & header, ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: case GGML_TYPE_F16:
            return ggml_type_size(type);
        case GGML_TYPE_Q4_0: case GGML_TYPE_Q4_1: case GGML_TYPE_Q5_0: case GGML_TYPE_Q5_1: case GGML_TYPE_Q8_0: {
            const layout l = layout_of(header, type);
            return l.n_scales * l.scale_bytes + l.n_high + (l.has_nibbles ? QUANTS : 2 * QUANTS);
        }
        case GGML_TYPE_Q2_K: case GGML_TYPE_Q3_K: case GGML_TYPE_Q4_K: case GGML_TYPE_Q5_K: case GGML_TYPE_Q6_K:
            return header.has_todays_blocks() ? ggml_type_size(type) : 0;
        default:
            return 0;
    }
}

bool needs_repacking(const legacy_header & header, ggml_type type) {
    if (header.has_todays_blocks() || !ggml_is_quantized(type)) {
        return false;
    }
    return !has_split_nibbles(header) ? true : type != GGML_TYPE_Q5_0 && type != GGML_TYPE_Q5_1;
}

void repack_blocks(const legacy_header & header, ggml_type type, const uint8_t * from, uint8_t * to, size_t n_blocks) {
    const layout l     = layout_of(header, type);
    const bool   split = l.has_nibbles && !has_split_nibbles(header);
    const size_t rest  = l.has_nibbles ? QUANTS : 2 * QUANTS;
    for (size_t i = 0; i < n_blocks; i++) {
        for (size_t s = 0; s < l.n_scales; s++) {
            if (l.scale_bytes == 4) {
                float wide;
                std::memcpy(&wide, from, 4);
                const ggml_fp16_t narrow = ggml_fp32_to_fp16(wide);
                std::memcpy(to, &narrow, 2);
            } else {
                std::memcpy(to, from, 2);
            }
            from += l.scale_bytes;
            to += 2;
        }
        std::memcpy(to, from, l.n_high);
        from += l.n_high;
        to += l.n_high;
        split ? split_nibbles(from, to) : static_cast<void>(std::memcpy(to, from, rest));
        from += rest;
        to += rest;
    }
}

} // namespace kollama
