// Registers of eight rows, with AVX2's products of bytes, which add up in 16 bits.

#include "products/attention.h"
#include "products/kernels_x86.inc"

#include "products/few_x86.inc"
#include "products/floats_x86.inc"

// In a register, here: gcc would load weights anew for every column, and keep all products, to add them up in the end.
#define KEEP(x) asm("" : "+x"(x))
#define KEEP_BOTH(x, y) asm("" : "+x"(x), "+x"(y))

namespace kollama {
namespace {

struct simd : eight_floats {
    static constexpr size_t ROWS = 8, FLOAT_COLUMNS = 4, FLOAT_REGISTERS = 3, MOST_SUMS = 8;
    static constexpr int    FAR = SECOND_CACHE;
    static constexpr bool   IN_REGISTERS = false;
    // Eight sums, and what a product takes, have room in registers.
    template <product_type TYPE> static constexpr size_t GROUPS          = TYPE == PRODUCT_Q8_0 ? 1 : 2;
    template <product_type TYPE> static constexpr size_t COLUMNS_AT_ONCE = TYPE == PRODUCT_Q8_0 ? 8 : 4;
    using bytes  = __m256i;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
    static KOLLAMA_INLINE void   store_bytes(void * p, bytes x) { _mm256_storeu_si256(static_cast<__m256i *>(p), x); }
    static KOLLAMA_INLINE quantised quantise(const float * x, bool minimum) { return quantise_block(x, minimum); }

    static KOLLAMA_INLINE __m128 add_halves(floats x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }

    template <product_type TYPE> static KOLLAMA_INLINE void unpack(const char * const * blocks, bytes * weights) {
        unpack_eight<TYPE>(blocks, weights);
    }

    template <class... MINIMUM> static KOLLAMA_INLINE void scales(const char * const * blocks, floats & scale, MINIMUM &... minimum) {
        scales_of(blocks, scale, minimum...);
    }

    // start + the products of a block with one column. MOST: the largest weight.
    template <size_t MOST> static KOLLAMA_INLINE floats dot(const bytes * weights, const int8_t * column, int32_t start) {
        if constexpr (MOST == 127) {
            return _mm256_cvtepi32_ps(dot_signed(weights, column));
        } else {
            return _mm256_cvtepi32_ps(dot_unsigned<MOST>(weights, column, start));
        }
    }

    // Numbers with a sign, of Q8_0. With its offset 16 bits would have no room for two products.
    static KOLLAMA_INLINE bytes dot_signed(const bytes * weights, const int8_t * column) {
        bytes sum = _mm256_setzero_si256();
        for (size_t j = 0; j < BLOCK / 4; j++) {
            sum = _mm256_add_epi32(sum, fours(_mm256_abs_epi8(weights[j]), _mm256_sign_epi8(four_of(column + 4 * j), weights[j])));
        }
        return sum;
    }

    // Products that 16 bits have room for.
    template <size_t MOST> static constexpr size_t fold() {
        constexpr size_t TERMS = 32767 / (2 * 127 * MOST);
        static_assert(TERMS >= 4, "the weights are too large for this");
        return TERMS >= 8 ? 8 : 4;
    }

    template <size_t MOST> static KOLLAMA_INLINE bytes dot_unsigned(const bytes * weights, const int8_t * column, int32_t start) {
        constexpr size_t FOLD = fold<MOST>();
        const __m256i    ones = _mm256_set1_epi16(1);
        __m256i          sum  = _mm256_set1_epi32(start);
        for (size_t first = 0; first < BLOCK / 4; first += FOLD) {
            __m256i part = _mm256_setzero_si256();
            for (size_t j = first; j < first + FOLD; j++) {
                part = _mm256_add_epi16(part, _mm256_maddubs_epi16(weights[j], four_of(column + 4 * j)));
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
        }
        return sum;
    }

    // With fewer columns, and with what takes long to unpack, it is no faster: benchmarks/RESULTS.md.
    template <product_type TYPE, size_t N> static constexpr bool THROUGH_MEMORY = format<TYPE>::MOST == 15 && N >= 4;
    static constexpr bool BY_ROW = false;

    // Four bytes of a column are loaded once for all registers of rows, and those of a register once for all columns.
    template <product_type TYPE, size_t C>
    static KOLLAMA_INLINE void dots(const uint8_t (*q)[GROUPS<TYPE> * ROWS][4], const int8_t (*columns)[BLOCK], bytes (*sums)[C]) {
        if constexpr (TYPE == PRODUCT_Q8_0) {
            dots_signed<C>(q, columns, sums[0]);
        } else {
            dots_unsigned<TYPE, C>(q, columns, sums);
        }
    }

    // What has the sign of a weight is -x = ~x + 1, where ~x takes any of the CPU's units for vectors, and the ones, which
    // add up to the negative weights' sizes, are the same for all columns.
    template <size_t C> static KOLLAMA_INLINE void dots_signed(const uint8_t (*q)[ROWS][4], const int8_t (*columns)[BLOCK], bytes * sums) {
        bytes added;
#pragma GCC unroll 8
        for (size_t j = 0; j < BLOCK / 4; j++) {
            const bytes w = load_bytes(q[j]);
            bytes       size = _mm256_abs_epi8(w), minus = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w);
            KEEP(size);
            KEEP(minus);
            const bytes ones = fours(size, _mm256_abs_epi8(minus));
            added            = j == 0 ? ones : _mm256_add_epi32(added, ones);
            KEEP(added);
#pragma GCC unroll 8
            for (size_t c = 0; c < C; c++) {
                const bytes products = fours(size, _mm256_xor_si256(four_of(columns[c] + 4 * j), minus));
                sums[c]              = j == 0 ? products : _mm256_add_epi32(sums[c], products);
                KEEP(sums[c]);
            }
        }
        for (size_t c = 0; c < C; c++) {
            sums[c] = _mm256_add_epi32(sums[c], added);
        }
    }

    static KOLLAMA_INLINE bytes fours(bytes weights, bytes column) {
        return _mm256_madd_epi16(_mm256_maddubs_epi16(weights, column), _mm256_set1_epi16(1));
    }

    template <product_type TYPE, size_t C>
    static KOLLAMA_INLINE void dots_unsigned(const uint8_t (*q)[2 * ROWS][4], const int8_t (*columns)[BLOCK], bytes (*sums)[C]) {
        constexpr size_t FOLD = fold<format<TYPE>::MOST>();
        const __m256i    ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
        for (size_t first = 0; first < BLOCK / 4; first += FOLD) {
            bytes part[2][C];
#pragma GCC unroll 8
            for (size_t j = first; j < first + FOLD; j++) {
                bytes w[2] = { load_bytes(q[j][0]), load_bytes(q[j][ROWS]) };
                KEEP_BOTH(w[0], w[1]);
#pragma GCC unroll 4
                for (size_t c = 0; c < C; c++) {
                    const bytes column = four_of(columns[c] + 4 * j);
                    for (size_t g = 0; g < 2; g++) {
                        const bytes pairs = _mm256_maddubs_epi16(w[g], column);
                        part[g][c]        = j == first ? pairs : _mm256_add_epi16(part[g][c], pairs);
                        KEEP(part[g][c]);
                    }
                }
            }
            for (size_t g = 0; g < 2; g++) {
                for (size_t c = 0; c < C; c++) {
                    const bytes sum = _mm256_madd_epi16(part[g][c], ones);
                    sums[g][c]      = first == 0 ? sum : _mm256_add_epi32(sums[g][c], sum);
                }
            }
        }
    }

    static KOLLAMA_INLINE bytes four_of(const int8_t * column) {
        int32_t four;
        std::memcpy(&four, column, 4);
        return _mm256_set1_epi32(four);
    }

    template <product_type TYPE> static KOLLAMA_INLINE floats from_dot(bytes sum, int32_t start) {
        return _mm256_cvtepi32_ps(TYPE == PRODUCT_Q8_0 ? sum : _mm256_add_epi32(sum, _mm256_set1_epi32(start)));
    }
};

} // namespace

const product_kernels product_kernels_avx2 = {
    { kernels_of<simd, PRODUCT_Q4_0>(), kernels_of<simd, PRODUCT_Q4_1>(), kernels_of<simd, PRODUCT_Q5_0>(),
      kernels_of<simd, PRODUCT_Q5_1>(), kernels_of<simd, PRODUCT_Q8_0>(), kernels_of_floats<simd>() },
    attend_avx2,
    merge_avx2,
};

} // namespace kollama
