// The default chain in one look at the logits: top-k, top-p, min-p, temperature, then a draw, in the
// order and with the meaning of llama.cpp's samplers (src/llama-sampler.cpp), without a candidate
// array over the whole vocabulary and without sorting it.

#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

using kollama::failure;
using kollama::ROW_BLOCK;

namespace {

bool larger(float a, float b) {
    return a > b;
}

// exp(x), and 1 for the inf - inf of a row with logits of +inf.
float weight(float logit, float peak, float inverse_temperature) {
    return logit == peak ? 1.0f : std::exp((logit - peak) * inverse_temperature);
}

} // namespace

// The k largest logits, sorted. The k-th largest block maximum bounds them from below, so only
// blocks that reach it are read again: about k of them.
void kollama_sampler::take_top(const float * logits, size_t n_vocab, size_t k) {
    float bound = -std::numeric_limits<float>::infinity();
    if (k < block_max_.size()) {
        block_order_ = block_max_;
        std::nth_element(block_order_.begin(), block_order_.begin() + (k - 1), block_order_.end(), larger);
        bound = block_order_[k - 1];
    }
    candidates_.clear();
    for (size_t b = 0; b < block_max_.size(); b++) {
        if (block_max_[b] < bound) {
            continue;
        }
        for (size_t i = b * ROW_BLOCK, end = std::min(n_vocab, i + ROW_BLOCK); i < end; i++) {
            if (logits[i] >= bound) {
                candidates_.push_back({ static_cast<int32_t>(i), logits[i] });
            }
        }
    }
    // Equal logits by id, so that a seed gives the same text on every machine.
    const auto before = [](const candidate & a, const candidate & b) {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    };
    if (k < candidates_.size()) {
        std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(), before);
        candidates_.resize(k);
    }
    std::sort(candidates_.begin(), candidates_.end(), before);
}

void kollama_sampler::take_all(const float * logits, size_t n_vocab) {
    candidates_.resize(n_vocab);
    for (size_t i = 0; i < n_vocab; i++) {
        candidates_[i] = { static_cast<int32_t>(i), logits[i] };
    }
}

// How many of the sorted candidates top_p keeps; SIZE_MAX where they do not reach it.
size_t kollama_sampler::n_for_top_p(float log_total) const {
    double sum = 0;
    for (size_t i = 0; i < candidates_.size(); i++) {
        sum += std::exp(candidates_[i].logit - log_total);
        if (sum >= params.top_p) {
            return i + 1;
        }
    }
    return SIZE_MAX;
}

// Leaves in candidates_ what top-k, top-p and min-p leave.
void kollama_sampler::cut(const float * logits, size_t n_vocab, float peak) {
    const bool top_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < n_vocab;
    const bool top_p = params.top_p < 1.0f;
    if (top_k) {
        take_top(logits, n_vocab, params.top_k);
        if (top_p && !std::isinf(peak)) {
            double total = 0;
            for (const candidate & c : candidates_) {
                total += std::exp(c.logit - peak);
            }
            const size_t n = n_for_top_p(peak + static_cast<float>(std::log(total)));
            candidates_.resize(std::min(n, candidates_.size()));
        }
    } else if (top_p && !std::isinf(peak)) {
        // Without top-k the nucleus is over the whole vocabulary, but it is nearly always small.
        const float log_total = kollama::log_sum_exp(logits, n_vocab, peak);
        for (size_t k = 256;; k *= 8) {
            take_top(logits, n_vocab, std::min(k, n_vocab));
            const size_t n = n_for_top_p(log_total);
            if (n != SIZE_MAX || k >= n_vocab) {
                candidates_.resize(std::min(n, candidates_.size()));
                break;
            }
        }
    } else {
        take_all(logits, n_vocab);
    }
    if (params.min_p > 0) {
        const float bound = peak + std::log(params.min_p);
        const auto  below = [&](const candidate & c) { return c.logit < bound; };
        candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), below), candidates_.end());
    }
}

// Draws an index of candidates_ with probability proportional to exp(logit / temperature).
size_t kollama_sampler::draw() {
    float peak = candidates_[0].logit;
    for (const candidate & c : candidates_) {
        peak = std::max(peak, c.logit);
    }
    weights_.resize(candidates_.size());
    double total = 0;
    for (size_t i = 0; i < candidates_.size(); i++) {
        weights_[i] = weight(candidates_[i].logit, peak, 1.0f / params.temperature);
        total += weights_[i];
    }
    // 53 bits of two draws: std::uniform_real_distribution differs between standard libraries.
    const uint64_t high = rng() >> 5, low = rng() >> 6;
    double         left = (high * 67108864.0 + low) / 9007199254740992.0 * total;
    size_t         last = 0; // the last with a weight, should rounding run past it
    for (size_t i = 0; i < weights_.size(); i++) {
        if (weights_[i] > 0) {
            last = i;
            if ((left -= weights_[i]) < 0) {
                return i;
            }
        }
    }
    return last;
}

kollama_sampler::choice kollama_sampler::sample(const float * logits, size_t n_vocab, bool with_logprob) {
    const kollama::row_peak peak   = kollama::scan_row(logits, n_vocab, block_max_);
    choice                  chosen = { static_cast<int32_t>(peak.index), 0 };
    if (params.temperature > 0) {
        cut(logits, n_vocab, peak.value);
        chosen.token = candidates_[draw()].id;
    }
    if (with_logprob) {
        chosen.logprob = logits[chosen.token] - kollama::log_sum_exp(logits, n_vocab, peak.value);
    }
    return chosen;
}

kollama_sampler * kollama_sampler_init(const kollama_sampler_params * params) {
    return new (std::nothrow) kollama_sampler(*params);
}

void kollama_sampler_free(kollama_sampler * sampler) {
    delete sampler;
}

kollama_status kollama_sampler_sample(kollama_sampler * sampler, kollama_row * row, int32_t * token) {
    return kollama::guarded([&] {
        if (sampler->in_use.exchange(true)) {
            throw failure(KOLLAMA_ERROR_BUSY, "this sampler is in use by a generation or another thread");
        }
        struct release {
            std::atomic<bool> & flag;
            ~release() { flag = false; }
        } at_exit{ sampler->in_use };
        // Another thread may write the row meanwhile: into the array, or by an append.
        sampler->copy = row->logits;
        *token        = sampler->sample(sampler->copy.data(), sampler->copy.size(), false).token;
    });
}
