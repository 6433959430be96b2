// Sixteen rows at a time, with the dot products of AVX-512 VNNI.

#include "products/kernels_x86.inc"

#include "products/few_x86.inc"
#include "products/floats_x86.inc"

namespace kollama {
namespace {

struct simd {
    static constexpr size_t ROWS = 16, FLOAT_COLUMNS = COLUMNS, FLOAT_REGISTERS = 2, MOST_SUMS = 16;
    template <product_type> static constexpr size_t GROUPS = 1;
    using bytes  = __m512i;
    using floats = __m512;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm512_loadu_si512(p); }
    static KOLLAMA_INLINE void   store_bytes(void * p, bytes x) { _mm512_storeu_si512(p, x); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm512_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm512_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats zero() { return _mm512_setzero_ps(); }
    static KOLLAMA_INLINE floats broadcast(float x) { return _mm512_set1_ps(x); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

    static KOLLAMA_INLINE floats widen(const char * p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }

    static KOLLAMA_INLINE __m128 add_halves(floats x) {
        const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
        return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    }

    static KOLLAMA_INLINE bytes both(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

    template <product_type TYPE> static KOLLAMA_INLINE void unpack(const char * const * blocks, bytes * weights) {
        __m256i low[BLOCK / 4], high[BLOCK / 4];
        unpack_eight<TYPE>(blocks, low);
        unpack_eight<TYPE>(blocks + 8, high);
        for (size_t j = 0; j < BLOCK / 4; j++) {
            weights[j] = both(low[j], high[j]);
            if constexpr (TYPE == PRODUCT_Q8_0) { // the instruction takes them without a sign
                weights[j] = _mm512_xor_si512(weights[j], _mm512_set1_epi8(-128));
            }
        }
    }

    static KOLLAMA_INLINE floats both(__m256 low, __m256 high) { return _mm512_castsi512_ps(both(_mm256_castps_si256(low), _mm256_castps_si256(high))); }

    static KOLLAMA_INLINE void scales(const char * const * blocks, floats & scale) {
        __m256 low, high;
        scales_of(blocks, low);
        scales_of(blocks + 8, high);
        scale = both(low, high);
    }

    static KOLLAMA_INLINE void scales(const char * const * blocks, floats & scale, floats & minimum) {
        __m256 low[2], high[2];
        scales_of(blocks, low[0], low[1]);
        scales_of(blocks + 8, high[0], high[1]);
        scale   = both(low[0], high[0]);
        minimum = both(low[1], high[1]);
    }

    static constexpr bool IN_REGISTERS = true;
    template <product_type, size_t> static constexpr bool THROUGH_MEMORY = false;

    // start + the products of a block with one column, whose fours are STRIDE apart.
    template <size_t, size_t STRIDE> static KOLLAMA_INLINE floats dot(const bytes * weights, const int8_t (*column)[4], int32_t start) {
        __m512i sum = _mm512_set1_epi32(start);
        for (size_t j = 0; j < BLOCK / 4; j++) {
            int32_t four;
            std::memcpy(&four, column[j * STRIDE], 4);
            sum = _mm512_dpbusd_epi32(sum, weights[j], _mm512_set1_epi32(four));
        }
        return _mm512_cvtepi32_ps(sum);
    }
};

} // namespace

const product_kernels product_kernels_avx512 = {
    { kernels_of<simd, PRODUCT_Q4_0>(), kernels_of<simd, PRODUCT_Q4_1>(), kernels_of<simd, PRODUCT_Q5_0>(),
      kernels_of<simd, PRODUCT_Q5_1>(), kernels_of<simd, PRODUCT_Q8_0>(), kernels_of_floats<simd>() },
};

} // namespace kollama
