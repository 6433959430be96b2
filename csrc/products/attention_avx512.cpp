// Attention of rows over one part of the K/V memory, with AVX-512.

#include "products/attention_x86.inc"

namespace kollama {
namespace {

struct lanes {
    static constexpr size_t N = 16, MOST = 6, HEADS_OF_FOUR = 6;
    using floats = __m512;

    static KOLLAMA_INLINE floats zero() { return _mm512_setzero_ps(); }
    static KOLLAMA_INLINE floats set(float x) { return _mm512_set1_ps(x); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm512_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm512_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static KOLLAMA_INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
    static KOLLAMA_INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
    static KOLLAMA_INLINE floats max(floats a, floats b) { return _mm512_max_ps(a, b); }
    static KOLLAMA_INLINE floats halves(const char * p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
    static KOLLAMA_INLINE float  sum_of(floats x) { return add_lanes(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1))); }
    static KOLLAMA_INLINE float  max_of(floats x) { return max_lanes(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1))); }

    static KOLLAMA_INLINE __m128 sums_of_four(const floats * x) {
        const __m512 ab  = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
        const __m512 cd  = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
        const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
        const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
        return _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
    }

    // As floats_avx2.h has it.
    static KOLLAMA_INLINE floats exp_of(floats x) {
        const __m512 low = _mm512_set1_ps(-87.3f);
        const __m512 y   = _mm512_max_ps(low, x);
        const __m512 n   = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m512       r   = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), y);
        r                = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
        __m512 p         = _mm512_set1_ps(1.9875691500e-4f);
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
        p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), _mm512_scalef_ps(p, n)); // NaN stays
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
