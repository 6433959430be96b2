// Attention of one row over one part of the K/V memory, with AVX2, FMA and F16C. No sum's order depends on
// how many heads are computed at a time.

#include "products/attention.h"

#include "products/floats_avx2.h"

namespace kollama {
namespace {

struct alignas(32) weights_of_part {
    float of[4][ATTENTION_PART]; // scores, then weights, of four heads
};

// n cells of the keys or values of a part, from the first on: rows of one head lie apart, between those of
// others, a pattern that has to be asked for. Into the second cache: such strides share few places of the first.
KOLLAMA_INLINE void fetch_cells(const char * rows, size_t stride, size_t n_bytes, const attention_part & part, size_t first, size_t n) {
    for (size_t i = first; i < first + n && i < part.n_cells; i++) {
        for (size_t at = 0; at < n_bytes; at += 64) {
            _mm_prefetch(rows + part.cells[i] * stride + at, _MM_HINT_T1);
        }
    }
}

KOLLAMA_INLINE const float * query(const attention_part & part, size_t head) {
    return reinterpret_cast<const float *>(part.queries + head * part.query_stride);
}

// The sums of the lanes of four registers.
KOLLAMA_INLINE __m128 add_lanes_of_four(const __m256 * x) {
    __m128 half[4];
    for (size_t i = 0; i < 4; i++) {
        half[i] = _mm_add_ps(_mm256_castps256_ps128(x[i]), _mm256_extractf128_ps(x[i], 1));
    }
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(half[0], half[1]), _mm_unpackhi_ps(half[0], half[1]));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(half[2], half[3]), _mm_unpackhi_ps(half[2], half[3]));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

// N heads and four cells at a time. What stands in the place of cells that are not there is of no matter.
template <size_t N> KOLLAMA_INLINE void score(const attention_part & part, size_t head, weights_of_part & w) {
    const size_t n_key = part.n_key, n_cells = part.n_cells;
    const __m128 scale = _mm_set1_ps(part.scale);
    const float * queries[N];
    for (size_t h = 0; h < N; h++) {
        queries[h] = query(part, head + h);
    }
    const attention_part * next = head == 0 ? part.next : nullptr;
    for (size_t i = 0; i < n_cells; i += 4) {
        if (next) {
            fetch_cells(next->keys, next->key_stride, 2 * n_key, *next, i, 4);
        }
        const char * keys[4];
        __m256       acc[N][4];
        for (size_t c = 0; c < 4; c++) {
            keys[c] = part.keys + part.cells[i + c < n_cells ? i + c : n_cells - 1] * part.key_stride;
            for (size_t h = 0; h < N; h++) {
                acc[h][c] = _mm256_setzero_ps();
            }
        }
        for (size_t d = 0; d < n_key; d += 8) {
#pragma GCC unroll 4
            for (size_t c = 0; c < 4; c++) {
                const __m256 k = halves(keys[c] + 2 * d);
#pragma GCC unroll 4
                for (size_t h = 0; h < N; h++) {
                    acc[h][c] = _mm256_fmadd_ps(k, _mm256_loadu_ps(queries[h] + d), acc[h][c]);
                }
            }
        }
        for (size_t h = 0; h < N; h++) {
            _mm_store_ps(w.of[h] + i, _mm_fmadd_ps(add_lanes_of_four(acc[h]), scale, _mm_loadu_ps(part.bias + i)));
        }
    }
}

// Scores to weights, relative to the largest. What fills the last register weighs nothing.
KOLLAMA_INLINE void weigh(float * scores, size_t n, float & most, float & sum) {
    size_t padded = n;
    for (; padded % 8 != 0; padded++) {
        scores[padded] = -INFINITY;
    }
    __m256 largest = _mm256_set1_ps(-INFINITY);
    for (size_t i = 0; i < padded; i += 8) {
        largest = _mm256_max_ps(largest, _mm256_load_ps(scores + i));
    }
    most         = max_lanes(largest);
    __m256 total = _mm256_setzero_ps();
    for (size_t i = 0; i < padded; i += 8) {
        const __m256 e = exp_of(_mm256_sub_ps(_mm256_load_ps(scores + i), _mm256_set1_ps(most)));
        _mm256_store_ps(scores + i, e);
        total = _mm256_add_ps(total, e);
    }
    sum = add_lanes(total);
}

// N heads, and REGISTERS of the values at a time.
template <size_t N, size_t REGISTERS> KOLLAMA_INLINE void add_values(const attention_part & part, size_t head, const weights_of_part & w) {
    for (size_t d = 0; d < part.n_value; d += 8 * REGISTERS) {
        __m256 acc[N][REGISTERS];
        for (size_t h = 0; h < N; h++) {
            for (size_t r = 0; r < REGISTERS; r++) {
                acc[h][r] = _mm256_setzero_ps();
            }
        }
        const attention_part * next = head == 0 && d == 0 ? part.next : nullptr;
        for (size_t i = 0; i < part.n_cells; i++) {
            if (next) {
                fetch_cells(next->values, next->value_stride, 2 * part.n_value, *next, i, 1);
            }
            const char * value = part.values + part.cells[i] * part.value_stride + 2 * d;
#pragma GCC unroll 4
            for (size_t r = 0; r < REGISTERS; r++) {
                const __m256 v = halves(value + 16 * r);
#pragma GCC unroll 4
                for (size_t h = 0; h < N; h++) {
                    acc[h][r] = _mm256_fmadd_ps(_mm256_broadcast_ss(&w.of[h][i]), v, acc[h][r]);
                }
            }
        }
        for (size_t h = 0; h < N; h++) {
            auto * out = reinterpret_cast<float *>(part.out + (head + h) * part.out_stride);
            for (size_t r = 0; r < REGISTERS; r++) {
                _mm256_storeu_ps(out + d + 8 * r, acc[h][r]);
            }
        }
    }
}

template <size_t N> void attend_heads(const attention_part & part, size_t head, weights_of_part & w) {
    score<N>(part, head, w);
    for (size_t h = 0; h < N; h++) {
        auto * out = reinterpret_cast<float *>(part.out + (head + h) * part.out_stride);
        weigh(w.of[h], part.n_cells, out[part.n_value], out[part.n_value + 1]);
    }
    if (N <= 3 && part.n_value % 32 == 0) {
        add_values<N, N <= 3 ? 4 : 2>(part, head, w);
    } else {
        add_values<N, 2>(part, head, w);
    }
}

} // namespace

// What a row does not attend to is never read: it may be another sequence's, whatever that has there.
size_t list_cells_avx2(const uint16_t * mask, size_t n, uint32_t * cells, float * bias) {
    size_t n_listed = 0;
    for (size_t i = 0; i < n; i++) {
        cells[n_listed] = static_cast<uint32_t>(i);
        bias[n_listed]  = _cvtsh_ss(mask[i]);
        n_listed += mask[i] != NOT_ATTENDED;
    }
    return n_listed;
}

void attend_avx2(const attention_part & part) {
    weights_of_part w;
    size_t          head = 0;
    if (part.is_first) {
        fetch_cells(part.keys, part.key_stride, 2 * part.n_key, part, 0, part.n_cells);
        fetch_cells(part.values, part.value_stride, 2 * part.n_value, part, 0, part.n_cells);
    }
    for (; head + 4 <= part.n_heads; head += 4) {
        attend_heads<4>(part, head, w);
    }
    switch (part.n_heads - head) {
        case 3: attend_heads<3>(part, head, w); break;
        case 2: attend_heads<2>(part, head, w); break;
        case 1: attend_heads<1>(part, head, w); break;
    }
}

// The parts of one head in their order.
void merge_avx2(const char * parts, size_t stride, size_t n_parts, size_t n_value, float * out) {
    auto  of   = [&](size_t i) { return reinterpret_cast<const float *>(parts + i * stride); };
    float most = -INFINITY;
    for (size_t i = 0; i < n_parts; i++) {
        most = fmaxf(most, of(i)[n_value]);
    }
    float sum = 0.0f;
    for (size_t d = 0; d < n_value; d += 8) {
        _mm256_storeu_ps(out + d, _mm256_setzero_ps());
    }
    for (size_t i = 0; i < n_parts; i++) {
        const float * part = of(i);
        const float weight = expf(part[n_value] - most);
        sum += weight * part[n_value + 1];
        for (size_t d = 0; d < n_value; d += 8) {
            _mm256_storeu_ps(out + d, _mm256_fmadd_ps(_mm256_set1_ps(weight), _mm256_loadu_ps(part + d), _mm256_loadu_ps(out + d)));
        }
    }
    const __m256 by = _mm256_set1_ps(sum == 0.0f ? 0.0f : 1.0f / sum);
    for (size_t d = 0; d < n_value; d += 8) {
        _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_loadu_ps(out + d), by));
    }
}

} // namespace kollama
