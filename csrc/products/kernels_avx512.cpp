// Sixteen rows at a time, with the dot products of AVX-512 VNNI.

#include "products/attention.h"
#include "products/floats_avx512.h"
#include "products/kernels_x86.inc"

#include "products/few_x86.inc"
#include "products/column_avx512.inc"
#include "products/floats_x86.inc"
#include "products/q6_k_avx512.inc"

namespace kollama {
namespace {

struct simd : sixteen_floats {
    static constexpr size_t ROWS = 16, FLOAT_COLUMNS = COLUMNS, FLOAT_REGISTERS = 2, MOST_SUMS = 16;
    static constexpr int    FAR = FIRST_CACHE; // the second was slower on Zen 5
    template <product_type> static constexpr size_t GROUPS = 1;
    using bytes  = __m512i;

    static KOLLAMA_INLINE bytes  load_bytes(const void * p) { return _mm512_loadu_si512(p); }
    static KOLLAMA_INLINE void   store_bytes(void * p, bytes x) { _mm512_storeu_si512(p, x); }

    static KOLLAMA_INLINE __m128 add_halves(floats x) {
        const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
        return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    }

    static KOLLAMA_INLINE bytes both(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

    // Four bytes of each of sixteen rows of 16, for each of the four fours. i + 4, i + 8 and i + 12 lie beside row i.
    static KOLLAMA_INLINE void transpose_sixteens(const char * const * blocks, size_t at, bytes * out) {
        auto sixteen = [&](size_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(blocks[i] + at)); };
        bytes a[4];
        for (size_t i = 0; i < 4; i++) {
            const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen(i)), sixteen(i + 4), 1);
            a[i] = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi256_si512(low), sixteen(i + 8), 2), sixteen(i + 12), 3);
        }
        const bytes first = _mm512_unpacklo_epi32(a[0], a[1]), second = _mm512_unpackhi_epi32(a[0], a[1]);
        const bytes third = _mm512_unpacklo_epi32(a[2], a[3]), fourth = _mm512_unpackhi_epi32(a[2], a[3]);
        out[0] = _mm512_unpacklo_epi64(first, third);
        out[1] = _mm512_unpackhi_epi64(first, third);
        out[2] = _mm512_unpacklo_epi64(second, fourth);
        out[3] = _mm512_unpackhi_epi64(second, fourth);
    }

    template <product_type TYPE> static KOLLAMA_INLINE void unpack(const char * const * blocks, bytes * weights) {
        if constexpr (TYPE == PRODUCT_Q8_0) {
            __m256i low[BLOCK / 4], high[BLOCK / 4];
            unpack_eight<TYPE>(blocks, low);
            unpack_eight<TYPE>(blocks + 8, high);
            for (size_t j = 0; j < BLOCK / 4; j++) { // the instruction takes them without a sign
                weights[j] = _mm512_xor_si512(both(low[j], high[j]), _mm512_set1_epi8(-128));
            }
            return;
        }
        bytes       fours[4];
        const bytes four = _mm512_set1_epi8(15);
        transpose_sixteens(blocks, format<TYPE>::SIZE - 16, fours);
        for (size_t j = 0; j < 4; j++) {
            weights[j]     = _mm512_and_si512(fours[j], four);
            weights[j + 4] = _mm512_and_si512(_mm512_srli_epi16(fours[j], 4), four);
        }
        if constexpr (TYPE == PRODUCT_Q5_0 || TYPE == PRODUCT_Q5_1) {
            constexpr size_t AT   = format<TYPE>::SIZE - 20;
            const bytes      bits = both(words_of<AT>(blocks), words_of<AT>(blocks + 8));
            add_fifths<0>(bits, weights[0]);
            add_fifths<4>(bits, weights[1]);
            add_fifths<8>(bits, weights[2]);
            add_fifths<12>(bits, weights[3]);
            add_fifths<16>(bits, weights[4]);
            add_fifths<20>(bits, weights[5]);
            add_fifths<24>(bits, weights[6]);
            add_fifths<28>(bits, weights[7]);
        }
    }

    // 16 to every byte whose bit is set: of the four bits from FIRST on of each lane.
    template <int FIRST> static KOLLAMA_INLINE void add_fifths(bytes bits, bytes & weights) {
        constexpr int  at   = FIRST / 8;
        constexpr int  from = 1 << FIRST % 8;
        const bytes    copy = _mm512_shuffle_epi8(bits, _mm512_set4_epi32(0x01010101 * (at + 12), 0x01010101 * (at + 8), 0x01010101 * (at + 4), 0x01010101 * at));
        const bytes    mask = _mm512_set1_epi32(static_cast<int>(from | from << 9 | from << 18 | static_cast<unsigned>(from) << 27));
        weights = _mm512_mask_add_epi8(weights, _mm512_test_epi8_mask(copy, mask), weights, _mm512_set1_epi8(16));
    }

    static KOLLAMA_INLINE floats both(__m256 low, __m256 high) { return _mm512_castsi512_ps(both(_mm256_castps_si256(low), _mm256_castps_si256(high))); }

    static KOLLAMA_INLINE void scales(const char * const * blocks, floats & scale) {
        scale = _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(halves_of(blocks)), halves_of(blocks + 8), 1));
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

    static constexpr bool BY_ROW = true;

    // As quantise_block, in half as many registers; but for a NaN, of which both forget.
    static KOLLAMA_INLINE quantised quantise(const float * x, bool minimum) {
        const floats low = load(x), high = load(x + 16);
        const float  peak  = largest_of(max(max(zero(), _mm512_abs_ps(low)), _mm512_abs_ps(high)));
        const floats by    = broadcast(peak != 0.0f ? 127.0f / peak : 0.0f);
        const bytes  first = to_integers(mul(low, by)), second = to_integers(mul(high, by));
        const auto   q     = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtsepi32_epi8(first)), _mm512_cvtsepi32_epi8(second), 1);
        __m256i      sums;
        if (minimum) {
            const bytes both = _mm512_add_epi32(first, second);
            sums             = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
        } else {
            sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
        }
        return { q, peak / 127.0f, sum_of(sums) };
    }

    static KOLLAMA_INLINE bytes to_integers(floats x) { return _mm512_cvt_roundps_epi32(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

    template <product_type TYPE, class... OF> static void multiply_column(OF... of) { kollama::multiply_column<simd, TYPE>(of...); }

    // start + the products of a block with one column.
    template <size_t> static KOLLAMA_INLINE floats dot(const bytes * weights, const int8_t * column, int32_t start) {
        __m512i sum = _mm512_set1_epi32(start);
        for (size_t j = 0; j < BLOCK / 4; j++) {
            int32_t four;
            std::memcpy(&four, column + 4 * j, 4);
            sum = _mm512_dpbusd_epi32(sum, weights[j], _mm512_set1_epi32(four));
        }
        return _mm512_cvtepi32_ps(sum);
    }
};

} // namespace

const product_kernels product_kernels_avx512 = {
    { kernels_of<simd, PRODUCT_Q4_0>(), kernels_of<simd, PRODUCT_Q4_1>(), kernels_of<simd, PRODUCT_Q5_0>(),
      kernels_of<simd, PRODUCT_Q5_1>(), kernels_of<simd, PRODUCT_Q8_0>(), kernels_of_floats<simd>(),
      kernels_of_q6_k<simd>() },
    attend_avx512,
    merge_avx512,
};

} // namespace kollama
