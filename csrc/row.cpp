#include "row.h"

#include <cmath>
#include <cstring>
#include <limits>

#if defined(__GNUC__) && defined(__x86_64__)
#    define KOLLAMA_X86_DISPATCH 1
#endif

#if defined(__GNUC__)
#    define KOLLAMA_INLINE inline __attribute__((always_inline))
#else
#    define KOLLAMA_INLINE inline
#endif

namespace kollama {
namespace {

constexpr int   LANES        = 16; // one AVX-512 register; the compiler splits it where there is none
constexpr float MINUS_INF    = -std::numeric_limits<float>::infinity();

// exp(x) for x <= 0, relative error below 2e-7: 2^n * p(r) with x = n ln 2 + r, |r| <= ln 2 / 2, and p
// of degree 6 (Cephes expf, S. Moshier). Written without branches so that it vectorises.
KOLLAMA_INLINE float exp_negative(float x) {
    x               = x > -87.0f ? x : -87.0f; // below it float has no normal numbers left: about 1e-38
    const float big = 12582912.0f;             // 1.5 * 2^23: adding it rounds to the nearest integer
    const float sum = x * 1.44269504f + big;
    const float n   = sum - big;
    const float r   = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float       p   = 1.9875691500e-4f;
    p               = p * r + 1.3981999507e-3f;
    p               = p * r + 8.3334519073e-3f;
    p               = p * r + 4.1665795894e-2f;
    p               = p * r + 1.6666665459e-1f;
    p               = p * r + 5.0000001201e-1f;
    p               = p * r * r + r + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &sum, sizeof(bits));
    bits = (bits + 127u) << 23; // the low bits of sum hold n
    float scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

// Maxima of whole blocks; returns whether a NaN was seen.
KOLLAMA_INLINE bool block_maxima_body(const float * logits, size_t n_blocks, float * block_max) {
    int32_t nans[LANES] = {};
    for (size_t b = 0; b < n_blocks; b++) {
        const float * x = logits + b * ROW_BLOCK;
        float         lane[LANES];
        for (int i = 0; i < LANES; i++) {
            lane[i] = x[i];
            nans[i] |= x[i] != x[i];
        }
        for (size_t j = LANES; j < ROW_BLOCK; j += LANES) {
            for (int i = 0; i < LANES; i++) {
                lane[i] = x[j + i] > lane[i] ? x[j + i] : lane[i];
                nans[i] |= x[j + i] != x[j + i];
            }
        }
        float best = lane[0];
        for (int i = 1; i < LANES; i++) {
            best = lane[i] > best ? lane[i] : best;
        }
        block_max[b] = best;
    }
    int32_t any = 0;
    for (int i = 0; i < LANES; i++) {
        any |= nans[i];
    }
    return any != 0;
}

KOLLAMA_INLINE double sum_exp_body(const float * logits, size_t n_blocks, float peak) {
    double total = 0;
    for (size_t b = 0; b < n_blocks; b++) {
        const float * x = logits + b * ROW_BLOCK;
        float         lane[LANES] = {};
        for (size_t j = 0; j < ROW_BLOCK; j += LANES) {
            for (int i = 0; i < LANES; i++) {
                lane[i] += exp_negative(x[j + i] - peak);
            }
        }
        float sum = 0;
        for (int i = 0; i < LANES; i++) {
            sum += lane[i];
        }
        total += sum;
    }
    return total;
}

using maxima_fn  = bool (*)(const float *, size_t, float *);
using sum_exp_fn = double (*)(const float *, size_t, float);

bool maxima_base(const float * x, size_t n, float * out) { return block_maxima_body(x, n, out); }
double sum_exp_base(const float * x, size_t n, float peak) { return sum_exp_body(x, n, peak); }

#ifdef KOLLAMA_X86_DISPATCH
__attribute__((target("avx2,fma"))) bool maxima_avx2(const float * x, size_t n, float * out) {
    return block_maxima_body(x, n, out);
}
__attribute__((target("avx2,fma"))) double sum_exp_avx2(const float * x, size_t n, float peak) {
    return sum_exp_body(x, n, peak);
}
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512"))) bool maxima_avx512(
    const float * x, size_t n, float * out) {
    return block_maxima_body(x, n, out);
}
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512"))) double sum_exp_avx512(
    const float * x, size_t n, float peak) {
    return sum_exp_body(x, n, peak);
}
#endif

struct kernels {
    maxima_fn  maxima  = maxima_base;
    sum_exp_fn sum_exp = sum_exp_base;
};

// Chosen at run time: libkollama itself is built for the oldest CPU it may meet.
kernels choose_kernels() {
    kernels k;
#ifdef KOLLAMA_X86_DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        k = { maxima_avx512, sum_exp_avx512 };
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        k = { maxima_avx2, sum_exp_avx2 };
    }
#endif
    return k;
}

const kernels best = choose_kernels();

} // namespace

row_peak scan_row(const float * logits, size_t n, std::vector<float> & block_max) {
    const size_t n_blocks = n / ROW_BLOCK;
    block_max.resize(n_blocks + (n % ROW_BLOCK ? 1 : 0));
    bool nan = best.maxima(logits, n_blocks, block_max.data());
    if (n % ROW_BLOCK) {
        float last = MINUS_INF;
        for (size_t i = n_blocks * ROW_BLOCK; i < n; i++) {
            last = logits[i] > last ? logits[i] : last;
            nan |= logits[i] != logits[i];
        }
        block_max.back() = last;
    }
    if (nan) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "the logits hold a NaN: nothing can be sampled from them");
    }
    row_peak peak{ MINUS_INF, 0 };
    size_t   peak_block = 0;
    for (size_t b = 0; b < block_max.size(); b++) {
        if (block_max[b] > peak.value) {
            peak.value = block_max[b];
            peak_block = b;
        }
    }
    if (peak.value == MINUS_INF) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "all logits are -inf: there is no token left to sample");
    }
    peak.index = peak_block * ROW_BLOCK;
    while (logits[peak.index] != peak.value) {
        peak.index++;
    }
    return peak;
}

float log_sum_exp(const float * logits, size_t n, float peak) {
    if (std::isinf(peak)) {
        return peak; // a logit of +inf takes all the probability
    }
    const size_t n_blocks = n / ROW_BLOCK;
    double       total    = best.sum_exp(logits, n_blocks, peak);
    for (size_t i = n_blocks * ROW_BLOCK; i < n; i++) {
        total += exp_negative(logits[i] - peak);
    }
    return peak + static_cast<float>(std::log(total));
}

} // namespace kollama

float * kollama_row_data(kollama_row * row) {
    return row->logits.data();
}

size_t kollama_row_size(const kollama_row * row) {
    return row->logits.size();
}

void kollama_row_release(kollama_row * row) {
    if (row && --row->owners == 0) {
        delete row;
    }
}
