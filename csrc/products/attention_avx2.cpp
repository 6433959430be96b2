// Attention of rows over one part of the K/V memory, with AVX2, FMA and F16C.

#include "products/attention_x86.inc"

namespace kollama {
namespace {

// The sums of the lanes of four registers.
KOLLAMA_INLINE __m128 add_lanes_of_four(const __m256 * x) {
    __m128 half[4];
    for (size_t i = 0; i < 4; i++) {
        half[i] = _mm_add_ps(_mm256_castps256_ps128(x[i]), _mm256_extractf128_ps(x[i], 1));
    }
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(half[0], half[1]), _mm_unpackhi_ps(half[0], half[1]));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(half[2], half[3]), _mm_unpackhi_ps(half[2], half[3]));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

struct lanes : eight_floats {
    static constexpr size_t MOST = 4, HEADS_OF_FOUR = 3;

    static KOLLAMA_INLINE __m128 sums_of_four(const floats * x) { return add_lanes_of_four(x); }
};

} // namespace

void attend_avx2(const attention_part & part) {
    attend_part<lanes>(part);
}

// What a row does not attend to is never read: it may be another sequence's, whatever that has there.
size_t list_cells_avx2(const uint16_t * mask, size_t n, uint32_t * cells, float * bias) {
    size_t n_listed = 0;
    for (size_t i = 0; i < n; i++) {
        cells[n_listed] = static_cast<uint32_t>(i);
        bias[n_listed]  = _cvtsh_ss(mask[i]);
        n_listed += mask[i] != NOT_ATTENDED;
    }
    return n_listed;
}

void merge_avx2(char * parts, size_t stride, size_t n_parts, size_t n_value, float * out) {
    merge_parts<lanes>(parts, stride, n_parts, n_value, out);
}

} // namespace kollama
