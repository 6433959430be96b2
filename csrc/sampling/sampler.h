// What chooses a token from a row: the default chain in one pass over it, or a chain of links.

#pragma once

#include "chain.h"
#include "row.h"

#include <mutex>
#include <random>

struct kollama_sampler : kollama::counted<KOLLAMA_HANDLE_SAMPLER> {
    kollama_sampler_params          params; // of the default chain
    std::unique_ptr<kollama::chain> chain;  // where there is one, it is used instead
    bool                            forbids = false; // that chain only forbids: params choose
    kollama::random_source          rng;
    std::atomic<bool>               in_use{false};
    uint64_t                        n_streams = 0; // it has served; by who has it

    explicit kollama_sampler(const kollama_sampler_params & params) : params(params), rng(params.seed) {}
    kollama_sampler(const kollama_sampler & other);

    struct choice {
        int32_t token;
        float   logprob; // of the model's own distribution
    };

    // What a chain needs to know of the model; nothing to do where it knows it already.
    void bind(const kollama_model & model);

    // The next sample begins a stream: penalties and grammar forget the one before.
    void begin();

    // What was drawn so far, to come back to. Penalties and grammars follow the stream by themselves.
    struct mark {
        uint64_t                                    n_drawn = 0;
        std::vector<std::unique_ptr<kollama::link>> links;
    };

    mark here() const;
    void go_to(mark mark);

    // Chooses from the row that follows tokens, and accepts what it chose. Not for two threads at
    // once. with_logprob costs a second pass. n_known: so many of the tokens are those of the latest
    // call with what it chose, and need not be compared. scan: of this row, where it was made already; used up.
    choice sample(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, bool with_logprob, size_t n_known = 0,
                  kollama::row_scan * scan = nullptr);

    // After a sample: nothing but an end token can come.
    bool ended() const { return chain && chain->ended(); }

  private:
    int32_t choose_by_default(const float * logits, size_t n_vocab, const kollama::row_peak & peak);
    int32_t choose_allowed(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, size_t n_known,
                           const kollama::row_peak & peak);
    void    take_all(const float * logits, size_t n_vocab);
    size_t  n_for_top_p(float log_total) const;
    void    cut(const float * logits, size_t n_vocab, float peak);
    size_t  draw();

  public:
    std::vector<float>   copy; // of a row that others may write while this thread samples
    std::vector<int32_t> tokens;

  private:
    // Kept between calls: no allocation per token.
    std::vector<float>     block_max_, block_order_;
    std::vector<kollama::row_entry> candidates_; // by logit, the largest first
    std::vector<float>     weights_;
    std::vector<float>     masked_;
};

namespace kollama {

// A sampler taken for one call or one generation; BUSY where another has it.
class sampler_hold {
  public:
    explicit sampler_hold(kollama_sampler * sampler, const char * busy);
    ~sampler_hold();
    sampler_hold(const sampler_hold &)             = delete;
    sampler_hold & operator=(const sampler_hold &) = delete;

    kollama_sampler * keep(); // the caller sets in_use to false

  private:
    kollama_sampler * sampler_;
};

} // namespace kollama
