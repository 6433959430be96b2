// Sixteen rows at a time, with the dot products of AVX-512 VNNI.

#include "products/kernels_x86.inc"

#include "products/few_x86.inc"
#include "products/floats_x86.inc"

namespace kollama {
namespace {

struct simd {
    static constexpr size_t ROWS = 16, MOST_COLUMNS = COLUMNS, FLOAT_COLUMNS = COLUMNS, FLOAT_REGISTERS = 2;
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

// ---- few columns ---------------------------------------------------------------------------------

// The 16 bytes at p of each of four blocks.
template <size_t SIZE> KOLLAMA_INLINE __m512i sixteens(const char * p) {
    auto at = [&](size_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + i * SIZE)); };
    const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
    const __m256i b = _mm256_inserti128_si256(_mm256_castsi128_si256(at(2)), at(3), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

KOLLAMA_INLINE int32_t read32(const char * p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return x;
}

KOLLAMA_INLINE int32_t read16(const char * p) {
    uint16_t x;
    std::memcpy(&x, p, 2);
    return x;
}

struct rows {
    static constexpr size_t GROUP = 4, MOST_SUMS = 16, LANES = 16;
    using bytes  = __m512i;
    using floats = __m512;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm512_load_si512(p); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm512_load_ps(p); }
    static KOLLAMA_INLINE floats zero() { return _mm512_setzero_ps(); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

    // Both halves of each block's numbers, as format<TYPE> has them: with its offset, never negative.
    template <product_type TYPE> static KOLLAMA_INLINE void read(const char * p, bytes & low, bytes & high) {
        constexpr size_t SIZE = format<TYPE>::SIZE;
        if constexpr (TYPE == PRODUCT_Q8_0) {
            auto at = [&](size_t i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + 2 + i * SIZE)); };
            const bytes a    = _mm512_inserti64x4(_mm512_castsi256_si512(at(0)), at(1), 1);
            const bytes b    = _mm512_inserti64x4(_mm512_castsi256_si512(at(2)), at(3), 1);
            const bytes sign = _mm512_set1_epi8(-128);
            low              = _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(2, 0, 2, 0)), sign);
            high             = _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(3, 1, 3, 1)), sign);
        } else {
            const bytes four = _mm512_set1_epi8(15);
            const bytes both = sixteens<SIZE>(p + SIZE - 16);
            low              = _mm512_and_si512(both, four);
            high             = _mm512_and_si512(_mm512_srli_epi16(both, 4), four);
        }
        if constexpr (TYPE == PRODUCT_Q5_0 || TYPE == PRODUCT_Q5_1) {
            const char * bits = p + SIZE - 20;
            __m128i      all  = _mm_cvtsi32_si128(read32(bits));
            all               = _mm_insert_epi32(all, read32(bits + SIZE), 1);
            all               = _mm_insert_epi32(all, read32(bits + 2 * SIZE), 2);
            all               = _mm_insert_epi32(all, read32(bits + 3 * SIZE), 3);
            all               = _mm_shuffle_epi8(all, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
            const bytes fifth = _mm512_set1_epi8(16);
            low  = _mm512_mask_add_epi8(low, static_cast<__mmask64>(_mm_cvtsi128_si64(all)), low, fifth);
            high = _mm512_mask_add_epi8(high, static_cast<__mmask64>(_mm_extract_epi64(all, 1)), high, fifth);
        }
    }

    template <product_type TYPE> struct group {
        bytes  low, high;
        floats scales, minima;

        KOLLAMA_INLINE explicit group(const char * p) {
            constexpr size_t SIZE = format<TYPE>::SIZE;
            read<TYPE>(p, low, high);
            if constexpr (has_minimum(TYPE)) {
                __m128i halves = _mm_cvtsi32_si128(read32(p));
                halves         = _mm_insert_epi32(halves, read32(p + SIZE), 1);
                halves         = _mm_insert_epi32(halves, read32(p + 2 * SIZE), 2);
                halves         = _mm_insert_epi32(halves, read32(p + 3 * SIZE), 3);
                const __m512 both = _mm512_castps256_ps512(_mm256_cvtph_ps(halves));
                scales = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6), both);
                minima = _mm512_permutexvar_ps(_mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7), both);
            } else {
                __m128i halves = _mm_cvtsi32_si128(read16(p));
                halves         = _mm_insert_epi16(halves, read16(p + SIZE), 1);
                halves         = _mm_insert_epi16(halves, read16(p + 2 * SIZE), 2);
                halves         = _mm_insert_epi16(halves, read16(p + 3 * SIZE), 3);
                scales = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                               _mm512_castps128_ps512(_mm_cvtph_ps(halves)));
                minima = zero();
            }
        }

        KOLLAMA_INLINE floats scale() const { return scales; }
        KOLLAMA_INLINE floats minimum() const { return minima; }

        KOLLAMA_INLINE floats dot(bytes a, bytes b, bytes start) const {
            const bytes first = offset_of(TYPE) == 0 ? _mm512_setzero_si512() : start;
            return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(first, low, a), high, b));
        }
    };

    static KOLLAMA_INLINE floats load_floats(const float * p) { return _mm512_loadu_ps(p); }
    static KOLLAMA_INLINE floats widen(const char * p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }

    static KOLLAMA_INLINE __m128 add_halves(floats x) {
        const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
        return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    }
};

} // namespace

const product_kernels product_kernels_avx512 = {
    rows::GROUP,
    { kernels_of<simd, rows, PRODUCT_Q4_0>(), kernels_of<simd, rows, PRODUCT_Q4_1>(), kernels_of<simd, rows, PRODUCT_Q5_0>(),
      kernels_of<simd, rows, PRODUCT_Q5_1>(), kernels_of<simd, rows, PRODUCT_Q8_0>(), kernels_of_floats<simd, rows>() },
};

} // namespace kollama
