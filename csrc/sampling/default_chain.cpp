// The default chain in one look at the logits: top-k, top-p, min-p, temperature, then a draw, in the
// order and with the meaning of llama.cpp's samplers (src/llama-sampler.cpp), without a candidate
// array over the whole vocabulary and without sorting it.

#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace {

// exp(x), and 1 for the inf - inf of a row with logits of +inf.
float weight(float logit, float peak, float inverse_temperature) {
    return logit == peak ? 1.0f : std::exp((logit - peak) * inverse_temperature);
}

} // namespace

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
        kollama::top_of_row(logits, n_vocab, params.top_k, block_max_, block_order_, candidates_);
        if (top_p && !std::isinf(peak)) {
            double total = 0;
            for (const kollama::row_entry & c : candidates_) {
                total += std::exp(c.logit - peak);
            }
            const size_t n = n_for_top_p(peak + static_cast<float>(std::log(total)));
            candidates_.resize(std::min(n, candidates_.size()));
        }
    } else if (top_p && !std::isinf(peak)) {
        // Without top-k the nucleus is over the whole vocabulary, but it is nearly always small.
        const float log_total = kollama::log_sum_exp(logits, n_vocab, peak);
        for (size_t k = 256;; k *= 8) {
            kollama::top_of_row(logits, n_vocab, std::min(k, n_vocab), block_max_, block_order_, candidates_);
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
        const auto  below = [&](const kollama::row_entry & c) { return c.logit < bound; };
        candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), below), candidates_.end());
    }
}

// Draws an index of candidates_ with probability proportional to exp(logit / temperature).
size_t kollama_sampler::draw() {
    float peak = candidates_[0].logit;
    for (const kollama::row_entry & c : candidates_) {
        peak = std::max(peak, c.logit);
    }
    weights_.resize(candidates_.size());
    double total = 0;
    for (size_t i = 0; i < candidates_.size(); i++) {
        weights_[i] = weight(candidates_[i].logit, peak, 1.0f / params.temperature);
        total += weights_[i];
    }
    double left = kollama::uniform(rng) * total;
    size_t last = 0; // the last with a weight, should rounding run past it
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

int32_t kollama_sampler::choose_by_default(const float * logits, size_t n_vocab, const kollama::row_peak & peak) {
    if (params.temperature <= 0) {
        return static_cast<int32_t>(peak.index);
    }
    cut(logits, n_vocab, peak.value);
    return candidates_[draw()].id;
}

// As chain::choose, with the pass over the row in place of the links that choose.
int32_t kollama_sampler::choose_allowed(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens,
                                        size_t n_known, const kollama::row_peak & peak) {
    chain->follow(tokens, n_known);
    int32_t id = choose_by_default(logits, n_vocab, peak);
    if (!chain->allows(id)) {
        masked_.assign(logits, logits + n_vocab);
        chain->mask(masked_.data(), n_vocab);
        id = choose_by_default(masked_.data(), n_vocab, kollama::scan_row(masked_.data(), n_vocab, block_max_));
    }
    chain->accept(id);
    return id;
}

kollama_sampler::choice kollama_sampler::sample(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens,
                                                bool with_logprob, size_t n_known, kollama::row_scan * scan) {
    if (scan) {
        std::swap(block_max_, scan->block_max);
    }
    const kollama::row_peak peak = scan ? scan->peak : kollama::scan_row(logits, n_vocab, block_max_);
    choice chosen = { -1, 0 };
    if (!chain) {
        chosen.token = choose_by_default(logits, n_vocab, peak);
    } else if (forbids) {
        chosen.token = choose_allowed(logits, n_vocab, tokens, n_known, peak);
    } else {
        chosen.token = chain->choose(logits, n_vocab, tokens, n_known, rng);
    }
    if (with_logprob) {
        chosen.logprob = logits[chosen.token] - (scan ? scan->log_total : kollama::log_sum_exp(logits, n_vocab, peak.value));
    }
    return chosen;
}
