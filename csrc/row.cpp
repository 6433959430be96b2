#include "row.h"

#include "row_kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace kollama {
namespace {

constexpr float MINUS_INF = -std::numeric_limits<float>::infinity();

// Chosen at run time: libkollama itself is built for the oldest CPU it may meet.
const row_kernels & choose_kernels() {
#ifdef KOLLAMA_X86_KERNELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        return row_kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return row_kernels_avx2;
    }
#endif
    return row_kernels_base;
}

const row_kernels & kernels() {
    static const row_kernels & chosen = choose_kernels();
    return chosen;
}

} // namespace

row_peak scan_row(const float * logits, size_t n, std::vector<float> & block_max) {
    const size_t n_blocks = n / ROW_BLOCK;
    block_max.resize(n_blocks + (n % ROW_BLOCK ? 1 : 0));
    bool nan = kernels().block_maxima(logits, n_blocks, block_max.data());
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

// The k-th largest block maximum bounds them from below, so only blocks that reach it are read again:
// about k of them.
void top_of_row(const float * logits, size_t n, size_t k, const std::vector<float> & block_max, std::vector<float> & order,
                std::vector<row_entry> & top) {
    float bound = MINUS_INF;
    if (k < block_max.size()) {
        order = block_max;
        std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), std::greater<float>());
        bound = order[k - 1];
    }
    top.clear();
    for (size_t b = 0; b < block_max.size(); b++) {
        if (block_max[b] < bound) {
            continue;
        }
        for (size_t i = b * ROW_BLOCK, end = std::min(n, i + ROW_BLOCK); i < end; i++) {
            if (logits[i] >= bound) {
                top.push_back({ static_cast<int32_t>(i), logits[i] });
            }
        }
    }
    const auto before = [](const row_entry & a, const row_entry & b) {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    };
    if (k < top.size()) {
        std::nth_element(top.begin(), top.begin() + (k - 1), top.end(), before);
        top.resize(k);
    }
    std::sort(top.begin(), top.end(), before);
}

float log_sum_exp(const float * logits, size_t n, float peak) {
    if (std::isinf(peak)) {
        return peak; // a logit of +inf takes all the probability
    }
    const size_t n_blocks = n / ROW_BLOCK;
    double       total    = kernels().sum_exp(logits, n_blocks, peak);
    for (size_t i = n_blocks * ROW_BLOCK; i < n; i++) {
        total += std::exp(logits[i] - peak);
    }
    return peak + static_cast<float>(std::log(total));
}

void row_scan::read(const float * logits, size_t n) {
    peak      = scan_row(logits, n, block_max);
    log_total = log_sum_exp(logits, n, peak.value);
}

} // namespace kollama

float * kollama_row_data(kollama_row * row) {
    return row->logits.data();
}

size_t kollama_row_size(const kollama_row * row) {
    return row->logits.size();
}

void kollama_row_retain(kollama_row * row) {
    ++row->owners;
}

void kollama_row_release(kollama_row * row) {
    if (row && --row->owners == 0) {
        delete row;
    }
}
