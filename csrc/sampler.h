#pragma once

#include "row.h"

#include <mutex>
#include <random>

struct kollama_sampler : kollama::counted<KOLLAMA_HANDLE_SAMPLER> {
    kollama_sampler_params params;
    std::mt19937           rng;
    std::atomic<bool>      in_use{false};

    explicit kollama_sampler(const kollama_sampler_params & params) : params(params), rng(params.seed) {}

    struct choice {
        int32_t token;
        float   logprob; // of the model's own distribution
    };

    // Chooses from a row. Not for two threads at once. with_logprob costs a second pass.
    choice sample(const float * logits, size_t n_vocab, bool with_logprob);

  private:
    struct candidate {
        int32_t id;
        float   logit;
    };

    void   take_top(const float * logits, size_t n_vocab, size_t k);
    void   take_all(const float * logits, size_t n_vocab);
    size_t n_for_top_p(float log_total) const;
    void   cut(const float * logits, size_t n_vocab, float peak);
    size_t draw();

  public:
    std::vector<float> copy; // of a row that others may write while this thread samples

  private:
    // Kept between calls: no allocation per token.
    std::vector<float>     block_max_, block_order_;
    std::vector<candidate> candidates_; // by logit, the largest first
    std::vector<float>     weights_;
};
