// The engine of a context: one thread that owns every call on its llama_context, and works off jobs
// and generations. Callers hand over work and wait in slices, so that signals, deadlines and
// cancellation are seen while a graph computes.
//
// One mutex per engine guards all that callers and the engine thread share; it is never held during
// compute. Handles share the engine, so that closing a context under a waiting thread is safe.

#pragma once

#include "adapters.h"
#include "crew.h"
#include "drafting.h"
#include "model.h"
#include "pace.h"
#include "ration.h"
#include "row.h"
#include "shared_cells.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace kollama {

class engine;
class sampler_hold;
struct generation;

// One stream of tokens in the context. While busy it belongs to the engine thread.
struct sequence : counted<KOLLAMA_HANDLE_SEQUENCE> {
    int                  id = -1;
    std::vector<int32_t> tokens;            // those in memory, at positions 0, 1, ...
    size_t               n_kept    = SIZE_MAX; // tokens behind these were computed with others, since dropped, in view
    kollama_row *        row       = nullptr;
    bool                 row_valid = false; // row holds the logits of tokens.back()
    bool                 busy      = false; // set and read under the engine's mutex
    bool                 dropped   = false; // its slot is given back once it is not busy

    ~sequence() { kollama_row_release(row); }

    size_t        n_exact() const { return std::min(n_kept, tokens.size()); }
    kollama_row * take_row() const; // of the last token's logits, retained; STATE where there is none
};

// Keeps a model from being freed.
class model_pin {
  public:
    explicit model_pin(kollama_model * model) : model_(model) { kollama_model_pin(model_); }
    ~model_pin() { kollama_model_unpin(model_); }
    model_pin(const model_pin &)             = delete;
    model_pin & operator=(const model_pin &) = delete;

  private:
    kollama_model * model_;
};

struct saved_sequence;

// Texts one after another, and the rows to fill: one a text, or one a token without pooling. The
// caller's memory, until the job has ended.
struct embed_request {
    const int32_t * tokens;
    const size_t *  ends;
    size_t          n_texts;
    kollama_pooling pooling;
    size_t          n_embd;
    float *         out;

    size_t begin(size_t text) const { return text == 0 ? 0 : ends[text - 1]; }
    size_t length(size_t text) const { return ends[text] - begin(text); }
};

struct job {
    std::function<void(job &)> work; // runs on the engine thread; what it throws is how the job ends
    std::shared_ptr<sequence>  seq;  // busy until the job has ended; may be null
    bool                       again = false; // set by work: it goes on once others had their turn
    kollama_status             status    = KOLLAMA_PENDING;
    bool                       begun     = false; // work alone can end it now: there is something to be undone
    bool                       cancelled = false;
    std::string                reason;
};

// News of generations for one thread. Under the engine's mutex.
struct watch_state {
    std::vector<uint64_t>   told; // keys of those that have some
    bool                    over = false; // none come any more
    std::condition_variable news;
};

// What one sequence adds to a batch.
struct batch_item {
    sequence *      seq;
    const int32_t * tokens;
    size_t          n_tokens;
    bool            logits;          // of its last token, and of the one before each guess
    size_t          n_guesses = 0;   // its last tokens: not the sequence's until they are taken; see take_back_guesses
    int32_t         output    = -1;    // set by decode: index for logits_of
    bool            emptied   = false; // set by decode: it failed, and this memory could not go back
    row_scan *      scan      = nullptr; // of the first row that it has logits of, where there is one
};

class engine : public std::enable_shared_from_this<engine>, counted<KOLLAMA_HANDLE_CONTEXT> {
  public:
    static std::shared_ptr<engine> create(kollama_model * model, const kollama_context_params & params);
    ~engine();

    // Ends the thread, then frees the llama_context. What still waits ends with CLOSED.
    void close();

    // At the interpreter's exit: ends every engine's thread and frees nothing.
    static void stop_all();

    // From ggml's abort callback. On a thread that computes for an engine, inside a graph: abandons that
    // engine and does not return. Else does nothing.
    static void on_failed_assertion(const char * message);

    // From servers, on a thread of theirs: one of the model's is gone. Its thread waits for ever, or will.
    void lose_servers(const std::string & reason);

    // In a child of fork(), which has this memory but none of the threads: nothing is joined or
    // freed from here on, and every call is refused.
    static void after_fork_in_child();

    // ---- for callers, any thread ----
    std::shared_ptr<job> submit(std::shared_ptr<sequence> seq, std::function<void(job &)> work);
    kollama_status       wait(job & job, int32_t timeout_ms);
    void                 cancel(job & job);

    std::shared_ptr<sequence> take_slot();
    void                      drop_slot(sequence & seq); // ends what works on it

    void           start(const std::shared_ptr<generation> & gen, sampler_hold & sampler);
    void           send(const std::shared_ptr<generation> & gen, kollama_sampler * sampler, int32_t token);
    void           request_cancel(generation & gen); // does not wait
    void           cancel(generation & gen);         // waits until it has ended
    kollama_status next(generation & gen, int32_t timeout_ms, kollama_event * event);
    void           get_stats(generation & gen, kollama_generation_stats * stats);

    // What there is of it, without waiting; where there is nothing, wait_news gives its key once there is.
    kollama_news   look(generation & gen, bool for_end);
    std::shared_ptr<watch_state> make_watch();
    kollama_status         wait_news(watch_state & watch, int32_t timeout_ms, std::vector<uint64_t> & keys); // one thread at a time
    void                   tell(watch_state & watch, uint64_t key); // as if there were news
    void                   end_watch(watch_state & watch);

    // Runs f under the mutex, once nobody works on seq: BUSY else.
    void with_idle(sequence & seq, const std::function<void()> & f);

    // For a call that goes on without the mutex: CLOSED where the context is closed already.
    std::unique_ptr<model_pin> pin_model();

    // ---- under the mutex ----
    void set_idle(sequence & seq);
    void announce(generation & gen); // to those who wait for it
    void ring();                     // for threads that watch, after announcements
    void end_watches();

    // ---- for jobs, on the engine thread ----
    // All or nothing: where it throws, every sequence is as it was. At most n_batch tokens in all.
    void          decode(std::vector<batch_item> & items);
    float *       logits_of(const batch_item & item, size_t guess = 0) const; // llama.cpp's row, until the next decode
    void          take_back_guesses(sequence & seq); // from memory: those that are not among its tokens by now
    // Keeps the first n_keep tokens.
    void rewind(sequence & seq, size_t n_keep);
    void fork(const sequence & src, sequence & dst);
    void borrow(const std::shared_ptr<sequence> & seq, const std::vector<int32_t> & tokens);
    // Drops n_discard tokens behind the first n_keep; some must be left behind them. What it shares with
    // others cannot be moved: it throws, or copies that for itself.
    void shift(sequence & seq, size_t n_keep, size_t n_discard, bool may_copy = false);
    // Tokens to read in one batch, so that generations have their turn soon.
    size_t n_part() const { return ration_.tokens(n_running_); }
    void check_cancelled(const job & job);
    void set_loras(std::vector<scaled_lora> loras);
    void set_control_vector(const std::vector<float> & data, int32_t first, int32_t last); // of layers 1, 2, ...; empty: none
    std::vector<uint8_t> save(const sequence & seq);
    void load(sequence & seq, const saved_sequence & saved); // where it throws, seq is empty
    void embed(job & job, const embed_request & request);

    void                  check_can_shift() const; // throws; any thread
    void                  check_vacant(); // throws where a sequence holds tokens; any thread
    uint64_t              adapters_key() const; // tells those in use from others; any thread
    const kollama_model * model() const { return model_; }
    size_t                n_vocab() const { return n_vocab_; }
    size_t                n_ctx() const { return n_ctx_; }
    size_t                n_batch() const { return n_batch_; }
    drafting *            drafts() { return drafting_.get(); } // null: nothing is guessed; for the engine thread
    bool                  embeds() const { return embeds_; }
    bool                  ranks() const { return ranks_; }
    std::string           cache_kind() const; // what a saved sequence depends on
    const std::vector<int32_t> & eog_tokens(); // every end-of-generation id; any thread

  private:
    struct share { // of the next batch
        std::shared_ptr<generation> gen;
        size_t                      n_tokens;
    };

    struct source {
        std::shared_ptr<sequence> seq;
        size_t                    n_tokens;
    };

    engine(kollama_model * model, const kollama_context_params & params);

    void open(const kollama_context_params & params);
    void open_threadpool(int32_t n_threads);
    void open_drafting(const kollama_context_params & params, const llama_context_params & own);
    void stop();
    bool abandon(kollama_status status, const std::string & reason); // false: it was abandoned before
    void leave_behind(); // threads stand in its memory for ever, and in the model's
    void run();
    bool run_job(std::unique_lock<std::mutex> & lock);
    bool run_generations(std::unique_lock<std::mutex> & lock);
    void run_drops();
    void cancel_locked(job & job);
    void cancel_locked(generation & gen);
    void choose(generation & gen, std::unique_lock<std::mutex> & lock);
    void revive(const std::shared_ptr<generation> & gen, kollama_sampler * sampler);
    void read_last_again(sequence & seq);
    int32_t compute(const llama_batch & batch);
    void step(const std::vector<std::shared_ptr<generation>> & ready);
    std::vector<share> allot(const std::vector<std::shared_ptr<generation>> & ready);
    bool awaits_prefix(generation & gen, const std::vector<std::shared_ptr<generation>> & before);
    source best_source(const std::shared_ptr<sequence> & seq, const std::vector<int32_t> & tokens, const sequence * but_not = nullptr);
    bool has_past(const sequence & seq, size_t n_keep) const;
    void copy_shared(sequence & seq);
    void guess(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners);
    kollama_status try_step(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners);
    void retry(kollama_status status, const std::vector<batch_item> & items,
               const std::vector<std::shared_ptr<generation>> & owners);
    void advance(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners);
    void scan_rows(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners);
    bool try_scan(const float * logits, row_scan & scan) const;
    void finish(job & job, kollama_status status, std::string reason);
    void fail(generation & gen, kollama_status status); // with kollama_last_error()
    void check_open() const; // under the mutex; CLOSED or, after a failed assertion, ENGINE

    void embed_piece(const embed_request & request, size_t first, size_t begin, size_t n);
    void pool(const embed_request & request, size_t text, size_t token, const float * state);
    void fill_batch(std::vector<batch_item> & items);
    void restore(std::vector<batch_item> & items);
    [[noreturn]] void fail_decode(int32_t code, std::vector<batch_item> & items, const std::string & errors);
    [[noreturn]] void throw_cancelled();
    static bool       abort_requested(void * self);
    bool is_cancelled() const { return abort_.load(std::memory_order_relaxed) && !shielded_.load(std::memory_order_relaxed); }

    kollama_model *  model_;
    llama_context *  ctx_        = nullptr;
    ggml_threadpool * threadpool_ = nullptr;
    crew             crew_;
    size_t           n_vocab_, n_ctx_ = 0, n_batch_ = 0;
    const bool       embeds_, ranks_;
    std::string      cache_kind_;

    std::mutex              mutex_;
    std::condition_variable work_, done_;
    std::thread             thread_;
    std::mutex              join_mutex_; // close and stop_all may both come to join
    bool                    stopping_ = false;
    bool                    closed_   = false;
    std::string             poison_; // the assertion that failed, or who is gone; nothing runs after it
    kollama_status          poison_status_ = KOLLAMA_ERROR_ENGINE;
    std::atomic<bool>       left_behind_{false};
    std::atomic<bool>       abandoned_{false}; // it failed inside a graph: its threads never end
    bool                    ended_ = false;    // thread_ has done its last work
    std::shared_ptr<engine> kept_;             // itself, once abandoned: the threads stand in its memory

    std::deque<std::shared_ptr<job>>         jobs_;
    std::vector<std::shared_ptr<generation>> generations_;
    std::vector<bool>                        slots_; // by sequence id: taken
    std::vector<std::weak_ptr<sequence>>     sequences_; // by id
    std::vector<int>                         drops_; // ids to be emptied before anything else runs
    std::vector<std::weak_ptr<watch_state>>        watches_;
    std::shared_ptr<job>                     running_; // generations mark themselves
    std::atomic<bool>                        abort_{false};      // polled by ggml between nodes
    std::atomic<bool>                        shielded_{false};   // and not heeded
    shared_cells                             shared_; // engine thread only
    std::vector<scaled_lora>                 loras_;  // likewise: those in use
    std::atomic<uint64_t>                    lora_key_{0}, control_key_{0};
    std::unique_ptr<pace>                    pace_;   // engine thread only
    std::unique_ptr<drafting>                drafting_; // likewise
    bool                                     may_repeat_ = false; // a batch that was given up leaves no trace in the memory
    bool                                     may_share_  = false; // a sequence can take what another one has in memory
    ration                                   ration_;            // engine thread only, as are the next two
    size_t                                   n_running_ = 0;     // generations that the latest batch had tokens of
    size_t                                   turn_      = 0;     // counts batches
    bool                                     reserves_ = true; // engine thread only: the next graph is laid out anew

    // Engine thread only, kept between batches.
    std::vector<llama_token>    tokens_;
    std::vector<llama_pos>      positions_;
    std::vector<int32_t>        n_seq_ids_;
    std::vector<llama_seq_id>   seq_ids_;
    std::vector<llama_seq_id *> seq_id_ptrs_;
    std::vector<int8_t>         outputs_;
    std::vector<row_scan>       scans_;

    std::once_flag       eog_once_;
    std::vector<int32_t> eog_tokens_;
};

} // namespace kollama

struct kollama_job : kollama::counted<KOLLAMA_HANDLE_JOB> {
    std::shared_ptr<kollama::engine> owner;
    std::shared_ptr<kollama::job>    state;
};

struct kollama_context {
    std::shared_ptr<kollama::engine> engine;
};

struct kollama_watch {
    std::shared_ptr<kollama::engine> owner;
    std::shared_ptr<kollama::watch_state> state;
    std::vector<uint64_t>            keys; // of the latest wait
};

struct kollama_sequence {
    std::shared_ptr<kollama::engine>   engine;
    std::shared_ptr<kollama::sequence> state;
};

namespace kollama {

// Hands work to the engine; throws where it is not taken.
void submit_job(kollama_sequence * seq, std::function<void(job &)> work, kollama_job ** out);
void submit_job(kollama_context & ctx, std::function<void(job &)> work, kollama_job ** out);

} // namespace kollama
