// Tokens that are guessed, and tried in one batch with the token before them: each row's own token is
// drawn by the stream's sampler all the same, so the text is what it would be without; guesses that were
// right have only made it come sooner.

#pragma once

#include "draft_lookup.h"
#include "draft_model.h"
#include "draft_worth.h"

#include <memory>

namespace kollama {

// What is guessed for one stream.
struct stream_draft {
    draft_lookup         lookup;
    std::vector<int32_t> guesses;
    std::vector<size_t>  kinds;   // of hit rate, one for each
    std::vector<int32_t> tokens;  // a batch's: the chosen token, and the guesses that are tried
    size_t               n_tried   = 0;
    size_t               n_drafted = 0, n_accepted = 0; // since the start
};

// Of one engine, on its thread.
class drafting {
  public:
    static constexpr size_t MOST = draft_worth::MOST_ROWS - 1; // guesses in a step

    explicit drafting(std::unique_ptr<draft_model> model); // null: from the text itself
    ~drafting();

    // A stream of the next step; without a draft nothing is guessed for it. text: prompt and generated tokens; in_memory: of these what the model
    // still sees, without the last.
    struct stream {
        stream_draft *               draft;
        int                          id;
        const std::vector<int32_t> * text;
        const std::vector<int32_t> * in_memory;
        size_t                       n_most; // guesses that there is room for
    };

    // Sets each draft's tokens and n_tried.
    void guess(std::vector<stream> & streams, int32_t n_threads);

    // A step of n_rows has taken so long.
    void took(size_t n_rows, double seconds) { worth_.took(n_rows, seconds); }

    // Of n_tried guesses the first n_right were right, and the next perhaps wrong. Where none was tried:
    // next is the token that came.
    void saw(stream_draft & draft, size_t n_tried, size_t n_right, bool then_wrong, int32_t next);

    draft_model * model() { return model_.get(); }

  private:
    bool choose(draft_worth::cost of_making);
    void look_up(std::vector<stream> & streams);
    void ask_model(std::vector<stream> & streams, int32_t n_threads);

    std::unique_ptr<draft_model>     model_;
    draft_worth                      worth_;
    std::vector<hit_rate>            rates_; // by kind: how sure a guess looks
    hit_rate                         all_;   // of the model's guesses
    std::vector<draft_worth::stream> choices_;
    const size_t                     fixed_; // guesses for each stream, whatever they cost; 0: as many as pay
};

} // namespace kollama
