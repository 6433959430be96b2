// Eight rows at a time, with AVX2's products of bytes, which add up in 16 bits.

#include "products/kernels_x86.inc"

namespace kollama {
namespace {

struct simd {
    static constexpr size_t ROWS = 8, MOST_COLUMNS = 4;
    using bytes  = __m256i;
    using floats = __m256;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm256_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm256_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats zero() { return _mm256_setzero_ps(); }
    static KOLLAMA_INLINE floats broadcast(float x) { return _mm256_set1_ps(x); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }

    // start + the products of a block with one column, whose fours are COLUMNS apart. MOST: the largest weight.
    template <size_t MOST> static KOLLAMA_INLINE floats dot(const bytes * weights, const int8_t (*column)[4], int32_t start) {
        constexpr size_t TERMS = 32767 / (2 * 127 * MOST); // that 16 bits have room for
        static_assert(TERMS >= 4, "the weights are too large for this");
        constexpr size_t FOLD = TERMS >= 8 ? 8 : 4;
        const __m256i    ones = _mm256_set1_epi16(1);
        __m256i          sum  = _mm256_set1_epi32(start);
        for (size_t first = 0; first < BLOCK / 4; first += FOLD) {
            __m256i part = _mm256_setzero_si256();
            for (size_t j = first; j < first + FOLD; j++) {
                int32_t four;
                std::memcpy(&four, column[j * COLUMNS], 4);
                part = _mm256_add_epi16(part, _mm256_maddubs_epi16(weights[j], _mm256_set1_epi32(four)));
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
        }
        return _mm256_cvtepi32_ps(sum);
    }
};

} // namespace

const product_kernels product_kernels_avx2 = {
    simd::ROWS,
    sizeof(panel_block<simd::ROWS>),
    quantise,
    { kernels_of<simd, PRODUCT_Q4_1>(), {}, kernels_of<simd, PRODUCT_Q5_1>(), {} },
};

} // namespace kollama
