// Attention of rows over one part of the K/V memory, with AVX-512.

#include "products/attention_x86.inc"
#include "products/floats_avx512.h"

namespace kollama {
namespace {

struct lanes : sixteen_floats {
    static constexpr size_t MOST = 6, HEADS_OF_FOUR = 6;

    static KOLLAMA_INLINE __m128 sums_of_four(const floats * x) {
        const __m512 ab  = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
        const __m512 cd  = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
        const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
        const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
        return _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
    }
};

} // namespace

void attend_avx512(const attention_part & part) {
    attend_part<lanes>(part);
}

void merge_avx512(char * parts, size_t stride, size_t n_parts, size_t n_value, float * out) {
    merge_parts<lanes>(parts, stride, n_parts, n_value, out);
}

} // namespace kollama
