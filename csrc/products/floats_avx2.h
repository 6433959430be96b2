// Eight floats in a register, with AVX2, FMA and F16C: included with those flags at least.

#pragma once

#include <immintrin.h>

#include <math.h>

#include <cstring>

#define KOLLAMA_INLINE inline __attribute__((always_inline))

namespace kollama {
namespace {

KOLLAMA_INLINE __m256 halves(const char * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

KOLLAMA_INLINE float add_lanes(__m256 x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s        = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

KOLLAMA_INLINE float max_lanes(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m        = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// exp(x) for x <= 0, to about one unit in the last place: 2^n times a polynomial of the rest (the
// coefficients are those of Cephes' expf).
KOLLAMA_INLINE __m256 exp_of(__m256 x) {
    const __m256 low = _mm256_set1_ps(-87.3f);
    const __m256 y   = _mm256_max_ps(low, x); // of a NaN and a number, the second
    const __m256 n   = _mm256_round_ps(_mm256_mul_ps(y, _mm256_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256       r   = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), y);
    r                = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p         = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const __m256  e     = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    return _mm256_and_ps(e, _mm256_cmp_ps(x, low, _CMP_NLT_UQ)); // NaN stays
}

// Eight times eight floats, from rows to columns, step floats apart.
KOLLAMA_INLINE void turn(const __m256 * rows, float * out, size_t step) {
    __m256 a[8], b[8];
    for (size_t i = 0; i < 4; i++) {
        a[2 * i]     = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        b[4 * i]     = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    for (size_t i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * step, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * step, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}

} // namespace
} // namespace kollama
