// One request of the default loop: a prompt, a sampler, and the events that it has produced.

#pragma once

#include "engine.h"
#include "sampling/sampler.h"
#include "stops.h"
#include "utf8.h"

#include <chrono>

namespace kollama {

struct generation : counted<KOLLAMA_HANDLE_GENERATION> {
    struct event {
        int32_t        token  = -1;
        float          logprob = 0;
        std::string    text;
        kollama_finish finish = KOLLAMA_FINISH_NONE;
        std::vector<kollama_logprob> top;
    };

    using clock = std::chrono::steady_clock;

    enum class watched { no, for_all, for_end };

    // Set before the start, then read only.
    engine *                  owner = nullptr;
    std::shared_ptr<sequence> seq;
    std::vector<int32_t>      prompt;
    int64_t                   max_tokens = -1;
    bool                      ignore_eos = false;
    size_t                    ahead      = 1;
    size_t                    n_top      = 0;
    size_t                    shift_at   = 0; // tokens in memory at which some are dropped; 0: never
    size_t                    n_keep     = 0; // the first of them, which are not
    bool                      calls_back = false; // the consumer's thread chooses the tokens
    std::shared_ptr<watch_state> watch;              // that is told of it, or none
    uint64_t                  key        = 0;     // what the watching thread knows it by

    // Engine thread only; from awaits_choice on until it is false again the consumer's.
    bool                 begun   = false;
    std::vector<int32_t> target;       // what is to be in memory before the next choice
    std::vector<int32_t> history;      // prompt and generated tokens, those dropped from memory included
    size_t               n_told  = 0;   // tokens of it that the sampler knows
    size_t               n_dropped = 0; // behind the first n_keep
    size_t               shifted_at = 0; // generated tokens that were there at the last shift
    size_t               n_read  = 0;  // tokens of the target in memory
    std::shared_ptr<generation> leader; // before it begins: who reads the first n_led tokens for both
    size_t               n_led   = 0;
    int32_t              pending = -1; // chosen, not yet in memory
    std::unique_ptr<stream_draft> draft; // where tokens are guessed
    stop_matcher      stops;
    utf8_stream       utf8;
    std::string       bytes, text;
    std::vector<float> masked; // logits of the end tokens, for ignore_eos
    std::vector<float> row;    // for the consumer to choose from, or to replace a choice
    size_t             row_at    = SIZE_MAX; // of which generated token
    bool               keeps_row = false;
    bool               replaces  = false; // what follows a token that was replaced is to be undone
    int32_t            sent      = -1;    // takes the place of a choice, the one at
    size_t             place     = 0;
    std::deque<kollama_sampler::mark> marks; // after each of the latest choices
    size_t                            first_mark = 0; // generated token that the first mark belongs to
    row_scan               own_scan; // where the engine made none
    std::vector<float>     order; // scratch of top_of_row
    std::vector<row_entry> top;

    // Ours from the start to the end.
    kollama_sampler * sampler  = nullptr;
    uint64_t          n_stream = 0; // of the sampler's

    // Under the engine's mutex.
    std::deque<event> events;
    kollama_status    status = KOLLAMA_PENDING; // OK once the last event is there
    std::string       reason;
    kollama_finish    finish    = KOLLAMA_FINISH_NONE;
    bool              cancelled = false;
    bool              running   = false; // in the batch that is being computed
    bool              awaits_choice = false; // row is there
    bool              choosing  = false; // the consumer works on it, and has the sampler
    watched           armed     = watched::no; // of which news the watching thread is to be told, once
    bool              asking    = false; // the consumer waits for a token that is not there
    bool              steps     = false; // tokens are replaced: none is computed before it is asked for
    int32_t           forced    = -1;    // to be put in the place of the last token handed out
    std::atomic<size_t> n_reused{0};
    size_t            n_drafted = 0, n_accepted = 0;
    size_t            n_handed  = 0;
    std::string       incomplete;
    clock::time_point started, first, last;
    std::condition_variable news;

    // The consumer's: what the last event points to.
    std::string                  handed;
    std::vector<kollama_logprob> handed_top;

    size_t n_generated() const { return history.size() - prompt.size(); }
    bool   resumes() const { return n_generated() > 0 || sent >= 0; }

    bool wants_step() const;
    bool shifts_next() const { return shift_at > 0 && pending >= 0 && seq->tokens.size() >= shift_at; }
    void take_forced();
    void replay(const tokenizer & tokenizer); // begins the text anew, up to the token to come

    // Under the mutex. Both give sequence and sampler back: the consumer may free them at once.
    void fail(kollama_status status, std::string reason);
    void end(kollama_finish finish);
    void publish(event event);
    void publish_all(std::vector<event> & events);
    void give_sampler_back();

    // On the thread that chooses, without the mutex. May write into the logits. scan: of them, or null.
    event decide(engine & e, float * logits, row_scan * scan = nullptr);

    // Engine thread, without the mutex.
    void       begin(engine & e);
    bool       replace(engine & e, std::mutex & mutex); // true: and that was all for this step
    batch_item next_item(engine & e, size_t budget);
    size_t     n_guessable(const engine & e) const; // guesses that the next step has room for
    bool       samples_as_is() const { return !calls_back && !ignore_eos && sent < 0; } // the next row, as llama.cpp gives it
    void       advance(engine & e, std::mutex & mutex, const batch_item & item);

  private:
    void                    release();
    void                    shift(engine & e);
    std::vector<int32_t>    in_memory() const; // what is left of the history
    kollama_sampler::choice choose(engine & e, float * logits, row_scan * scan); // never null where a token was sent
    kollama_sampler::choice sample(engine & e, float * logits, row_scan * scan); // may write into them
    kollama_finish          take(engine & e, int32_t token); // fills text
    void                    decide_all(engine & e, const batch_item & item, std::vector<event> & events);
};

} // namespace kollama
