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

// A register of floats, by names that those of other widths have, too: floats_avx512.h.
struct eight_floats {
    static constexpr size_t N = 8;
    using floats = __m256;

    static KOLLAMA_INLINE floats load(const float * p) { return _mm256_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm256_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats widen(const char * p) { return halves(p); } // 16-bit floats
    static KOLLAMA_INLINE floats zero() { return _mm256_setzero_ps(); }
    static KOLLAMA_INLINE floats broadcast(float x) { return _mm256_set1_ps(x); }
    static KOLLAMA_INLINE floats add(floats a, floats b) { return _mm256_add_ps(a, b); }
    static KOLLAMA_INLINE floats sub(floats a, floats b) { return _mm256_sub_ps(a, b); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
    static KOLLAMA_INLINE floats fnma(floats a, floats b, floats c) { return _mm256_fnmadd_ps(a, b, c); } // c - a * b
    static KOLLAMA_INLINE floats max(floats a, floats b) { return _mm256_max_ps(a, b); } // of a NaN and a number, b
    static KOLLAMA_INLINE float  total_of(floats x) { return add_lanes(x); }
    static KOLLAMA_INLINE float  largest_of(floats x) { return max_lanes(x); }
    static KOLLAMA_INLINE floats rounded(floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

    static KOLLAMA_INLINE floats times_power(floats x, floats n) { // of two
        return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
    }

    static KOLLAMA_INLINE floats unless_less(floats x, floats a, floats b) { return _mm256_and_ps(x, _mm256_cmp_ps(a, b, _CMP_NLT_UQ)); } // than b: 0
};

// exp(x) for x <= 0, to about one unit in the last place: 2^n times a polynomial of the rest (the
// coefficients are those of Cephes' expf).
template <class S> KOLLAMA_INLINE typename S::floats exp_of(typename S::floats x) {
    using floats = typename S::floats;
    const floats low = S::broadcast(-87.3f);
    const floats y   = S::max(low, x);
    const floats n   = S::rounded(S::mul(y, S::broadcast(1.44269504088896341f)));
    floats       r   = S::fnma(n, S::broadcast(0.693359375f), y);
    r                = S::fnma(n, S::broadcast(-2.12194440e-4f), r);
    floats p         = S::broadcast(1.9875691500e-4f);
    p = S::fma(p, r, S::broadcast(1.3981999507e-3f));
    p = S::fma(p, r, S::broadcast(8.3334519073e-3f));
    p = S::fma(p, r, S::broadcast(4.1665795894e-2f));
    p = S::fma(p, r, S::broadcast(1.6666665459e-1f));
    p = S::fma(p, r, S::broadcast(5.0000001201e-1f));
    p = S::fma(S::mul(p, r), r, S::add(r, S::broadcast(1.0f)));
    return S::unless_less(S::times_power(p, n), x, low); // NaN stays
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
