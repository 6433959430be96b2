// Sixteen rows at a time, with the dot products of AVX-512 VNNI.

#include "products/kernels_x86.inc"

namespace kollama {
namespace {

struct simd {
    static constexpr size_t ROWS = 16, MOST_COLUMNS = COLUMNS;
    using bytes  = __m512i;
    using floats = __m512;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm512_loadu_si512(p); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm512_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm512_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats zero() { return _mm512_setzero_ps(); }
    static KOLLAMA_INLINE floats broadcast(float x) { return _mm512_set1_ps(x); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

    // start + the products of a block with one column, whose fours are COLUMNS apart.
    template <size_t> static KOLLAMA_INLINE floats dot(const bytes * weights, const int8_t (*column)[4], int32_t start) {
        __m512i sum = _mm512_set1_epi32(start);
        for (size_t j = 0; j < BLOCK / 4; j++) {
            int32_t four;
            std::memcpy(&four, column[j * COLUMNS], 4);
            sum = _mm512_dpbusd_epi32(sum, weights[j], _mm512_set1_epi32(four));
        }
        return _mm512_cvtepi32_ps(sum);
    }
};

} // namespace

const product_kernels product_kernels_avx512 = {
    simd::ROWS,
    sizeof(panel_block<simd::ROWS>),
    quantise,
    { kernels_of<simd, PRODUCT_Q4_1>(), kernels_of<simd, PRODUCT_Q5_0>(), kernels_of<simd, PRODUCT_Q5_1>(),
      kernels_of<simd, PRODUCT_Q8_0>() },
};

} // namespace kollama
