// Eight rows at a time, with AVX2's products of bytes, which add up in 16 bits.

#include "products/kernels_x86.inc"

#include "products/few_x86.inc"
#include "products/floats_x86.inc"

namespace kollama {
namespace {

struct simd {
    static constexpr size_t ROWS = 8, MOST_COLUMNS = 4, FLOAT_COLUMNS = 4, FLOAT_REGISTERS = 3;
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
        if constexpr (MOST == 255) {
            return _mm256_cvtepi32_ps(dot_signed(weights, column));
        } else {
            return _mm256_cvtepi32_ps(dot_unsigned<MOST>(weights, column, start));
        }
    }

    // 16 bits have no room for two products of 255: of Q8_0 the offset is taken off again.
    static KOLLAMA_INLINE bytes dot_signed(const bytes * weights, const int8_t (*column)[4]) {
        bytes sum = _mm256_setzero_si256();
        for (size_t j = 0; j < BLOCK / 4; j++) {
            int32_t four;
            std::memcpy(&four, column[j * COLUMNS], 4);
            const bytes signed_four = _mm256_xor_si256(weights[j], _mm256_set1_epi8(-128));
            const bytes pairs       = _mm256_maddubs_epi16(_mm256_abs_epi8(signed_four), _mm256_sign_epi8(_mm256_set1_epi32(four), signed_four));
            sum                     = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        return sum;
    }

    template <size_t MOST> static KOLLAMA_INLINE bytes dot_unsigned(const bytes * weights, const int8_t (*column)[4], int32_t start) {
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
        return sum;
    }
};

// ---- few columns ---------------------------------------------------------------------------------

struct rows {
    static constexpr size_t GROUP = 2, MOST_SUMS = 8, LANES = 8;
    using bytes  = __m256i;
    using floats = __m256;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm256_load_si256(static_cast<const __m256i *>(p)); }
    static KOLLAMA_INLINE floats load(const float * p) { return _mm256_load_ps(p); }
    static KOLLAMA_INLINE floats zero() { return _mm256_setzero_ps(); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }

    // The 16 bytes at p, and those of the next block.
    template <size_t SIZE> static KOLLAMA_INLINE bytes sixteens(const char * p) {
        const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
        return _mm256_inserti128_si256(_mm256_castsi128_si256(a), _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + SIZE)), 1);
    }

    // Two halves, two bytes of each at FIRST, to the four lanes of each block.
    template <int FIRST, int SECOND> static KOLLAMA_INLINE floats spread(__m128i halves) {
        constexpr int a = FIRST, b = SECOND;
        return _mm256_cvtph_ps(_mm_shuffle_epi8(halves, _mm_setr_epi8(a, a + 1, a, a + 1, a, a + 1, a, a + 1, b, b + 1, b, b + 1, b, b + 1, b, b + 1)));
    }

    // 16 in every byte whose bit is set: of the two bytes at FIRST of each of two 32 bits.
    template <int FIRST> static KOLLAMA_INLINE bytes fifth(__m256i bits) {
        constexpr int a = FIRST, b = FIRST + 1;
        const bytes which  = _mm256_setr_epi8(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b, a + 4, a + 4, a + 4, a + 4, a + 4, a + 4, a + 4, a + 4,
                                              b + 4, b + 4, b + 4, b + 4, b + 4, b + 4, b + 4, b + 4);
        const bytes mask   = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
        const bytes spread = _mm256_and_si256(_mm256_shuffle_epi8(bits, which), mask);
        return _mm256_and_si256(_mm256_cmpeq_epi8(spread, mask), _mm256_set1_epi8(16));
    }

    template <product_type TYPE> struct group {
        static constexpr size_t SIZE = format<TYPE>::SIZE;
        bytes  low, high;
        floats scales, minima;

        // The numbers with their offset, never negative; of Q8_0 as they are, since 16 bits have no room
        // for products of 255.
        KOLLAMA_INLINE explicit group(const char * p) {
            if constexpr (TYPE == PRODUCT_Q8_0) {
                low  = sixteens<SIZE>(p + 2);
                high = sixteens<SIZE>(p + 18);
            } else {
                const bytes both = sixteens<SIZE>(p + SIZE - 16);
                low  = _mm256_and_si256(both, _mm256_set1_epi8(15));
                high = _mm256_and_si256(_mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
            }
            if constexpr (TYPE == PRODUCT_Q5_0 || TYPE == PRODUCT_Q5_1) {
                const char *  at   = p + SIZE - 20;
                const __m256i bits = _mm256_set1_epi64x(static_cast<long long>(read<uint32_t>(at) | static_cast<uint64_t>(read<uint32_t>(at + SIZE)) << 32));
                low  = _mm256_or_si256(low, fifth<0>(bits));
                high = _mm256_or_si256(high, fifth<2>(bits));
            }
            if constexpr (has_minimum(TYPE)) {
                const uint64_t halves = read<uint32_t>(p) | static_cast<uint64_t>(read<uint32_t>(p + SIZE)) << 32;
                const __m128i  both   = _mm_cvtsi64_si128(static_cast<long long>(halves));
                scales = spread<0, 4>(both);
                minima = spread<2, 6>(both);
            } else {
                const uint32_t halves = read<uint16_t>(p) | static_cast<uint32_t>(read<uint16_t>(p + SIZE)) << 16;
                scales = spread<0, 2>(_mm_cvtsi32_si128(static_cast<int>(halves)));
                minima = zero();
            }
        }

        KOLLAMA_INLINE floats scale() const { return scales; }
        KOLLAMA_INLINE floats minimum() const { return minima; }

        static KOLLAMA_INLINE bytes signed_fours(bytes weights, bytes a) {
            const bytes pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(a, weights));
            return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        }

        KOLLAMA_INLINE floats dot(bytes a, bytes b, bytes start) const {
            bytes sum;
            if constexpr (TYPE == PRODUCT_Q8_0) {
                sum = _mm256_add_epi32(signed_fours(low, a), signed_fours(high, b));
            } else {
                static_assert(format<TYPE>::MOST * 127 * 4 <= 32767, "the weights are too large for this");
                const bytes pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, a), _mm256_maddubs_epi16(high, b));
                sum               = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                if constexpr (offset_of(TYPE) != 0) {
                    sum = _mm256_add_epi32(sum, start);
                }
            }
            return _mm256_cvtepi32_ps(sum);
        }
    };

    template <class T> static KOLLAMA_INLINE T read(const char * p) {
        T x;
        std::memcpy(&x, p, sizeof x);
        return x;
    }

    static KOLLAMA_INLINE floats load_floats(const float * p) { return _mm256_loadu_ps(p); }
    static KOLLAMA_INLINE floats widen(const char * p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
    static KOLLAMA_INLINE __m128 add_halves(floats x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
};

} // namespace

const product_kernels product_kernels_avx2 = {
    rows::GROUP,
    { kernels_of<simd, rows, PRODUCT_Q4_0>(), kernels_of<simd, rows, PRODUCT_Q4_1>(), kernels_of<simd, rows, PRODUCT_Q5_0>(),
      kernels_of<simd, rows, PRODUCT_Q5_1>(), kernels_of<simd, rows, PRODUCT_Q8_0>(), kernels_of_floats<simd, rows>() },
};

} // namespace kollama
