// The inner loops of prompt_attention.h, with AVX2, FMA and F16C.

#include "products/prompt_attention.h"

#include "products/floats_avx2.h"

namespace kollama {

void attended_bits_avx2(const uint16_t * mask, size_t n, uint64_t * bits) {
    const __m256i none = _mm256_set1_epi16(static_cast<short>(NOT_ATTENDED));
    auto thirty_two = [&](size_t at) {
        const __m256i low  = _mm256_cmpeq_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(mask + at)), none);
        const __m256i high = _mm256_cmpeq_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(mask + at + 16)), none);
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
        return static_cast<uint64_t>(~static_cast<uint32_t>(_mm256_movemask_epi8(both)));
    };
    size_t at = 0;
    for (; at + 64 <= n; at += 64) {
        bits[at / 64] = thirty_two(at) | thirty_two(at + 32) << 32;
    }
    if (at < n) {
        bits[at / 64] = 0;
        for (; at < n; at++) {
            bits[at / 64] |= static_cast<uint64_t>(mask[at] != NOT_ATTENDED) << at % 64;
        }
    }
}

void pack_keys_avx2(const char * keys, size_t stride, const uint32_t * cells, size_t n_cells, size_t n_key, size_t n_rows, float * panels) {
    for (size_t first = 0; first < n_cells; first += 8) {
        const char * eight[8];
        for (size_t i = 0; i < 8; i++) { // what stands in the place of cells that are not there is of no matter
            eight[i] = keys + cells[first + i < n_cells ? first + i : n_cells - 1] * stride;
        }
        float * out = panels + first / n_rows * n_rows * n_key + first % n_rows;
        for (size_t k = 0; k < n_key; k += 8) {
            __m256 rows[8];
            for (size_t i = 0; i < 8; i++) {
                rows[i] = halves(eight[i] + 2 * k);
            }
            turn(rows, out + k * n_rows, n_rows);
        }
    }
}

void pack_values_avx2(const char * values, size_t stride, const uint32_t * cells, size_t n_cells, size_t room, size_t n_value, size_t n_rows,
                      float * panels) {
    for (size_t i = 0; i < n_cells; i++) {
        const char * value = values + cells[i] * stride;
        for (size_t first = 0; first < n_value; first += n_rows) {
            float * out = panels + first * room + i * n_rows;
            for (size_t d = 0; d < n_rows && first + d < n_value; d += 8) {
                _mm256_storeu_ps(out + d, halves(value + 2 * (first + d)));
            }
        }
    }
    for (size_t first = 0; first < n_value; first += n_rows) {
        std::memset(panels + first * room + n_cells * n_rows, 0, (room - n_cells) * n_rows * sizeof(float));
    }
}

bool gather_mask_avx2(const uint16_t * mask, const uint32_t * cells, size_t n, size_t room, uint16_t * out) {
    bool any = false;
    if (cells[n - 1] - cells[0] == n - 1) { // side by side
        std::memcpy(out, mask + cells[0], n * sizeof(*out));
        for (size_t i = 0; i < n; i++) {
            any |= out[i] != NOT_ATTENDED;
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            out[i] = mask[cells[i]];
            any |= out[i] != NOT_ATTENDED;
        }
    }
    for (size_t i = n; i < room; i++) {
        out[i] = NOT_ATTENDED;
    }
    return any;
}

float weigh_scores_avx2(float * scores, const uint16_t * mask, size_t n, float scale, float & most, float & sum) {
    const __m256 by      = _mm256_set1_ps(scale), none = _mm256_set1_ps(-INFINITY);
    __m256       largest = none, any = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        const __m256 bias     = halves(reinterpret_cast<const char *>(mask + i));
        const __m256 attended = _mm256_cmp_ps(bias, none, _CMP_NEQ_UQ); // whatever the others have
        const __m256 score    = _mm256_blendv_ps(none, _mm256_fmadd_ps(_mm256_load_ps(scores + i), by, bias), attended);
        _mm256_store_ps(scores + i, score);
        largest = _mm256_max_ps(largest, score);
        any     = _mm256_or_ps(any, attended);
    }
    if (_mm256_movemask_ps(any) == 0) {
        for (size_t i = 0; i < n; i += 8) {
            _mm256_store_ps(scores + i, _mm256_setzero_ps());
        }
        return 1.0f;
    }
    const float before = most;
    most               = fmaxf(before, max_lanes(largest));
    __m256 total = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        const __m256 e = exp_of<eight_floats>(_mm256_sub_ps(_mm256_load_ps(scores + i), _mm256_set1_ps(most)));
        _mm256_store_ps(scores + i, e);
        total = _mm256_add_ps(total, e);
    }
    const float factor = expf(before - most);
    sum                = sum * factor + add_lanes(total);
    return factor;
}

void add_sums_avx2(float * sums, float factor, const float * more, size_t n) {
    const __m256 by = _mm256_set1_ps(factor);
    for (size_t i = 0; i < n; i += 8) {
        _mm256_store_ps(sums + i, _mm256_fmadd_ps(_mm256_load_ps(sums + i), by, _mm256_load_ps(more + i)));
    }
}

void divide_avx2(const float * sums, float by, size_t n, float * out) {
    const __m256 factor = _mm256_set1_ps(by == 0.0f ? 0.0f : 1.0f / by);
    for (size_t i = 0; i < n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_load_ps(sums + i), factor));
    }
}

} // namespace kollama
