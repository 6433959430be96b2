// Sixteen floats in a register, with AVX-512.

#pragma once

#include "products/floats_avx2.h"

namespace kollama {
namespace {

struct sixteen_floats { // as eight_floats
    static constexpr size_t N = 16;
    using floats = __m512;

    static KOLLAMA_INLINE floats load(const float * p) { return _mm512_loadu_ps(p); }
    static KOLLAMA_INLINE void   store(float * p, floats x) { _mm512_storeu_ps(p, x); }
    static KOLLAMA_INLINE floats widen(const char * p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
    static KOLLAMA_INLINE floats zero() { return _mm512_setzero_ps(); }
    static KOLLAMA_INLINE floats broadcast(float x) { return _mm512_set1_ps(x); }
    static KOLLAMA_INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
    static KOLLAMA_INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
    static KOLLAMA_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
    static KOLLAMA_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
    static KOLLAMA_INLINE floats fnma(floats a, floats b, floats c) { return _mm512_fnmadd_ps(a, b, c); }
    static KOLLAMA_INLINE floats max(floats a, floats b) { return _mm512_max_ps(a, b); }
    static KOLLAMA_INLINE float  total_of(floats x) { return add_lanes(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1))); }
    static KOLLAMA_INLINE float  largest_of(floats x) { return max_lanes(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1))); }
    static KOLLAMA_INLINE floats rounded(floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static KOLLAMA_INLINE floats times_power(floats x, floats n) { return _mm512_scalef_ps(x, n); }
    static KOLLAMA_INLINE floats unless_less(floats x, floats a, floats b) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x); }
};

} // namespace
} // namespace kollama
