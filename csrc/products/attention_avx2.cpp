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

struct lanes {
    static constexpr size_t N = 8, MOST = 4, HEADS_OF_FOUR = 3;
    using floats = __m256;

    static KOLLAMA_INLINE floats zero() { return _mm256_setzero_ps(); }
    static KOLLAMA_INLINE floats set(float x) { return _mm256_set1_ps(x); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm256_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm256_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
    static KOLLAMA_INLINE floats add(floats a, floats b) { return _mm256_add_ps(a, b); }
    static KOLLAMA_INLINE floats sub(floats a, floats b) { return _mm256_sub_ps(a, b); }
    static KOLLAMA_INLINE floats max(floats a, floats b) { return _mm256_max_ps(a, b); }
    static KOLLAMA_INLINE floats halves(const char * p) { return kollama::halves(p); }
    static KOLLAMA_INLINE floats exp_of(floats x) { return kollama::exp_of(x); }
    static KOLLAMA_INLINE __m128 sums_of_four(const floats * x) { return add_lanes_of_four(x); }
    static KOLLAMA_INLINE float  sum_of(floats x) { return add_lanes(x); }
    static KOLLAMA_INLINE float  max_of(floats x) { return max_lanes(x); }
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
