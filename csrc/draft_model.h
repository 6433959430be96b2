// Guesses of a smaller model with the same vocabulary: a context of its own, which follows the sequences
// of an engine and runs on that engine's threads.

#pragma once

#include "model.h"
#include "row.h"

#include <vector>

namespace kollama {

class draft_model {
  public:
    struct setup {
        llama_context_params params; // of the engine's own context
        ggml_threadpool *    threadpool;
        const kollama_model & target;
    };

    // Throws where the model cannot guess for the target.
    draft_model(kollama_model * model, const setup & setup);
    ~draft_model();
    draft_model(const draft_model &)             = delete;
    draft_model & operator=(const draft_model &) = delete;

    // A stream that is to be guessed on.
    struct request {
        int                  id; // of its sequence
        std::vector<int32_t> text;
        size_t               n_most;
        std::vector<int32_t> guesses;
        std::vector<double>  chances; // what the model gives each
    };

    // Tokens that it has to read before it can guess.
    size_t n_behind(int id, const std::vector<int32_t> & text) const;
    size_t n_most_tokens() const { return n_positions_; } // of text and guesses

    // Up to n_most guesses each, the likeliest token every time; fewer once goes_on(chances) is false, and
    // where it was cancelled or failed.
    template <typename F> void guess(std::vector<request> & requests, int32_t n_threads, F && goes_on) {
        catch_up(requests, n_threads);
        for (size_t turn = 0; next_turn(requests, turn, n_threads); turn++) {
            for (request & r : requests) {
                if (r.guesses.size() == turn + 1 && !goes_on(r.chances)) {
                    r.n_most = turn + 1;
                }
            }
        }
    }

    double seconds_each() const { return seconds_each_; }       // a turn
    double seconds_a_token() const { return seconds_a_token_; } // of a text

    // An assertion failed in a graph of the engine's threads: they stand where they are for ever.
    void stop_for_ever();
    void count_as_abandoned() { ++model_->n_abandoned; } // at the close, in place of freeing it

  private:
    void check(const kollama_model & target) const;
    void catch_up(std::vector<request> & requests, int32_t n_threads);
    bool next_turn(std::vector<request> & requests, size_t turn, int32_t n_threads);
    int32_t decode(int32_t n_threads);
    void add(int id, int32_t token, bool wants_logits);
    void keep(int id, size_t n_tokens);
    void forget_all();

    kollama_model *                   model_;
    llama_context *                   ctx_ = nullptr;
    size_t                            n_vocab_, n_batch_, n_positions_;
    bool                              reserves_ = true, broken_ = false;
    std::atomic<bool>                 decodes_{ false };
    std::vector<std::vector<int32_t>> tokens_; // in memory, by sequence
    double                            seconds_each_ = 0, seconds_a_token_ = 0;

    std::vector<llama_token>    batch_;
    std::vector<llama_pos>      positions_;
    std::vector<llama_seq_id>   seq_ids_;
    std::vector<llama_seq_id *> seq_id_ptrs_;
    std::vector<int32_t>        n_seq_ids_;
    std::vector<int8_t>         outputs_;
    row_scan                    scan_;
};

} // namespace kollama
