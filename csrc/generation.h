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
    bool                      calls_back = false; // the consumer's thread chooses the tokens
    uint64_t                  key        = 0;     // what the watching thread knows it by

    // Engine thread only; from awaits_choice on until it is false again the consumer's.
    bool              begun     = false;
    size_t            n_read    = 0;  // tokens of the prompt in memory
    int32_t           pending   = -1; // sampled, not yet in memory
    size_t            n_sampled = 0;
    stop_matcher      stops;
    utf8_stream       utf8;
    std::string       bytes, text;
    std::vector<float> masked; // logits of the end tokens, for ignore_eos
    std::vector<float> row;    // for the consumer to choose from
    std::vector<float>     block_max, order; // scratch of top_of_row
    std::vector<row_entry> top;

    // Ours from the start to the end.
    kollama_sampler * sampler = nullptr;

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
    std::atomic<size_t> n_reused{0};
    size_t            n_handed  = 0;
    std::string       incomplete;
    clock::time_point started, first, last;
    std::condition_variable news;

    // The consumer's: what the last event points to.
    std::string                  handed;
    std::vector<kollama_logprob> handed_top;

    bool wants_step() const { return status == KOLLAMA_PENDING && !cancelled && !awaits_choice && events.size() < ahead; }

    // Under the mutex. Both give sequence and sampler back: the consumer may free them at once.
    void fail(kollama_status status, std::string reason);
    void end(kollama_finish finish);
    void publish(event event);
    void give_sampler_back();

    // On the thread that chooses, without the mutex. May write into the logits.
    event decide(engine & e, float * logits);

    // Engine thread, without the mutex.
    void       begin(engine & e);
    batch_item next_item(size_t budget);
    void       advance(engine & e, std::mutex & mutex, const batch_item & item);

  private:
    void                    release();
    void                    look(const float * logits, size_t n_vocab); // fills top
    kollama_sampler::choice sample(engine & e, float * logits); // may write into them
    kollama_finish          take(engine & e, int32_t token); // fills text
};

} // namespace kollama
