#include "engine.h"

#include "backend.h"
#include "generation.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace kollama {
namespace {

// Every open engine, for stop_all. Never destroyed: an engine may be closed after static destructors.
struct registry {
    std::mutex            mutex;
    std::vector<engine *> engines;
};

registry & open_engines() {
    static registry * instance = new registry;
    return *instance;
}

std::atomic<bool> in_forked_child{false};

void check_not_forked() {
    if (in_forked_child) {
        throw failure(KOLLAMA_ERROR_STATE, "this process was forked from one that had a model open: the threads that compute are not "
                                           "here. Start processes with multiprocessing's \"spawn\", and load the model in them");
    }
}

// The types that llama.cpp's K/V cache can hold; others are not checked there before they are used.
ggml_type kv_type(const char * name, const char * argument) {
    static const ggml_type allowed[] = { GGML_TYPE_F32,  GGML_TYPE_F16,    GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                         GGML_TYPE_Q4_1, GGML_TYPE_IQ4_NL, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1 };
    std::string names;
    for (ggml_type type : allowed) {
        if (std::strcmp(ggml_type_name(type), name) == 0) {
            return type;
        }
        names += (names.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    throw failure(KOLLAMA_ERROR_ARGUMENT, std::string(argument) + " is '" + name + "'; it can be " + names);
}

} // namespace

// ---- life ----------------------------------------------------------------------------------------

std::shared_ptr<engine> engine::create(kollama_model * model, const kollama_context_params & params) {
    check_not_forked();
    if (params.n_seq_max > llama_max_parallel_sequences()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("n_seq_max is %u; llama.cpp holds at most %zu sequences in a context",
                                                     params.n_seq_max, llama_max_parallel_sequences()));
    }
    std::shared_ptr<engine> self(new engine(model, params)); // with room for so many
    self->open(params);
    std::lock_guard<std::mutex> lock(open_engines().mutex); // stop_all sees the thread, or nothing
    self->thread_ = std::thread(&engine::run, self.get());
    open_engines().engines.push_back(self.get());
    return self;
}

engine::engine(kollama_model * model, const kollama_context_params & params) :
    model_(model),
    n_vocab_(llama_vocab_n_tokens(model->vocab)),
    n_ctx_(std::min<size_t>(params.n_ctx, model->n_positions)),
    embeds_(params.embeddings),
    ranks_(params.embeddings && params.ranks),
    slots_(params.n_seq_max),
    sequences_(params.n_seq_max),
    shared_(params.n_seq_max) {
    ++model_->n_contexts;
}

engine::~engine() {
    close();
}

void engine::open(const kollama_context_params & params) {
    if (model_->vocab_only) {
        throw failure(KOLLAMA_ERROR_STATE, "the model was loaded with vocab_only: it has no weights to compute with");
    }
    llama_context_params p = llama_context_default_params();
    p.n_ctx           = params.n_ctx;
    p.n_batch         = params.n_batch;
    p.n_ubatch        = params.n_ubatch;
    p.n_seq_max       = params.n_seq_max;
    p.n_outputs_max   = embeds_ ? std::max(params.n_batch, params.n_seq_max) : params.n_seq_max; // one row a sequence, else a token
    if (params.draft != KOLLAMA_DRAFT_NONE) {
        p.n_outputs_max += drafting::MOST; // and one for each guess
    }
    p.embeddings      = embeds_;
    if (ranks_) {
        p.pooling_type = LLAMA_POOLING_TYPE_RANK;
    } else if (embeds_ && params.file_pools) {
        p.pooling_type = LLAMA_POOLING_TYPE_NONE; // pooling is ours
    }
    p.n_threads       = params.n_threads;
    p.n_threads_batch = params.n_threads;
    p.flash_attn_type = static_cast<llama_flash_attn_type>(params.flash_attn);
    p.type_k          = kv_type(params.type_k, "type_k");
    p.type_v          = kv_type(params.type_v, "type_v");
    p.swa_full        = params.swa_full;
    p.kv_unified      = true; // the sequences share n_ctx, and a fork shares its prefix
    p.abort_callback      = abort_requested;
    p.abort_callback_data = this;

    if (n_ctx_ < params.n_ctx / params.n_seq_max) {
        log_warning(format("this model has learned positions for %zu tokens: no sequence can have more, though n_ctx is %u", n_ctx_, params.n_ctx));
    }
    guard g;
    {
        std::shared_lock<std::shared_mutex> lock(model_->loras_mutex);
        ctx_ = llama_init_from_model(model_->handle, p);
    }
    if (!ctx_) {
        throw failure(KOLLAMA_ERROR_LOAD, "the context cannot be made: " + (g.errors().empty() ? "llama.cpp gave no reason" : g.errors()));
    }
    n_batch_    = llama_n_batch(ctx_);
    cache_kind_ = std::string("K ") + params.type_k + ", V " + params.type_v +
                  (llama_model_n_swa(model_->handle) > 0 ? params.swa_full ? ", full" : ", window" : "");
    open_threadpool(params.n_threads);
    pace_       = std::make_unique<pace>(params.n_threads);
    may_repeat_ = !llama_model_is_recurrent(model_->handle) && !llama_model_is_hybrid(model_->handle);
    if (params.draft != KOLLAMA_DRAFT_NONE) {
        open_drafting(params, p);
    }
}

// After the threads: a model that guesses computes on them.
void engine::open_drafting(const kollama_context_params & params, const llama_context_params & own) {
    const bool is_window = llama_model_n_swa(model_->handle) > 0 && !params.swa_full;
    if (!may_repeat_ || is_window || !llama_get_memory(ctx_)) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, std::string("draft: this model's memory cannot go back behind a wrong guess: it ") +
                                                  (is_window ? "keeps a window only (swa_full=True keeps it whole)" : "is recurrent"));
    }
    std::unique_ptr<draft_model> model;
    if (params.draft == KOLLAMA_DRAFT_MODEL) {
        model = std::make_unique<draft_model>(params.draft_model, draft_model::setup{ own, threadpool_, *model_ });
    }
    drafting_ = std::make_unique<drafting>(std::move(model));
}

// How long a thread spins for the next graph before it sleeps: each counts for 131,072 looks, some 3 ms
// where there is an instruction to pause with, and a thirtieth of it elsewhere. Longer than what lies
// between two tokens; ggml's own 50 keep a core busy for a sixth of a second after every answer, at the
// cost of whatever else the program does.
#if defined(__x86_64__)
constexpr uint32_t POLL = 1;
#else
constexpr uint32_t POLL = 30;
#endif

// Without a pool of its own a context starts and ends n_threads threads for every graph.
void engine::open_threadpool(int32_t n_threads) {
    ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
    params.poll = POLL;
    threadpool_ = cpu_function<decltype(ggml_threadpool_new)>("ggml_threadpool_new")(&params);
    if (!threadpool_) {
        throw failure(KOLLAMA_ERROR_MEMORY, format("%d compute threads cannot be started", n_threads));
    }
    crew_.enlist(threadpool_, n_threads, *this);
    llama_attach_threadpool(ctx_, threadpool_, nullptr);
}

void engine::stop() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
        abort_    = true;
    }
    work_.notify_all();
    std::lock_guard<std::mutex> joining(join_mutex_);
    if (!thread_.joinable()) {
        return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return ended_ || abandoned_; });
    lock.unlock();
    if (!abandoned_) {
        thread_.join();
    }
}

void engine::close() {
    if (in_forked_child) {
        new std::shared_ptr<engine>(shared_from_this()); // never freed: the thread is not here to be joined
        return;
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (closed_) {
            return;
        }
        closed_ = true;
    }
    stop();
    {
        std::lock_guard<std::mutex> lock(open_engines().mutex);
        auto & all = open_engines().engines;
        all.erase(std::remove(all.begin(), all.end(), this), all.end());
    }
    if (abandoned_) {
        ++model_->n_abandoned; // its threads stand where they are for ever: their memory, and the model's, stays
        if (drafting_ && drafting_->model()) {
            drafting_->model()->count_as_abandoned();
        }
        return;
    }
    drafting_ = nullptr; // before the threads that it computes on
    llama_free(ctx_);
    ctx_ = nullptr;
    loras_.clear();
    if (threadpool_) {
        cpu_function<decltype(ggml_threadpool_free)>("ggml_threadpool_free")(threadpool_);
        threadpool_ = nullptr;
    }
    --model_->n_contexts;
}

void engine::stop_all() {
    if (in_forked_child) {
        return;
    }
    std::lock_guard<std::mutex> lock(open_engines().mutex);
    for (engine * e : open_engines().engines) {
        e->stop();
    }
}

// Unwinding is safe where no other thread waits for this one: outside a graph, and in a graph of one thread.
void engine::on_failed_assertion(const char * message) {
    engine * e = crew::employer();
    if (!e) {
        return;
    }
    if (crew::is_worker() || (in_backend() && (e->crew_.size() > 1 || has_other_devices()))) {
        if (e->abandon(message)) {
            e->crew_.end();
        }
        crew::park(); // another thread of the graph was faster
    }
}

// What waits for this engine hears of it; the engine's thread, which cannot be told, is in the graph and
// never comes back to what it works on.
bool engine::abandon(const char * message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (abandoned_) {
        return false;
    }
    kept_      = shared_from_this();
    abandoned_ = true;
    poison_    = message;
    if (reserves_) { // the engine's thread computes with the lock
        model_->loras_stuck = true;
    }
    if (drafting_ && drafting_->model()) {
        drafting_->model()->stop_for_ever();
    }
    if (running_) {
        finish(*running_, KOLLAMA_ERROR_ENGINE, poison_);
    }
    for (auto & job : jobs_) {
        finish(*job, KOLLAMA_ERROR_ENGINE, poison_);
    }
    for (auto & gen : generations_) {
        gen->fail(KOLLAMA_ERROR_ENGINE, poison_);
    }
    jobs_.clear();
    generations_.clear();
    done_.notify_all();
    log_warning("an assertion failed inside a graph: the memory of its context and of its model stays until the process ends");
    return true;
}

void engine::after_fork_in_child() {
    in_forked_child = true;
}

void engine::check_open() const {
    check_not_forked();
    if (closed_ || stopping_) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the context is closed");
    }
    if (!poison_.empty()) {
        throw failure(KOLLAMA_ERROR_ENGINE, "this context cannot be used since an assertion failed in it: " + poison_);
    }
}

// ---- the thread ----------------------------------------------------------------------------------

void engine::run() {
    crew_.join(*this);
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
        // One job, then one step of the generations: neither starves the other. An id that was given
        // back is emptied before each, as it may have been taken again meanwhile.
        run_drops();
        const bool did_job = run_job(lock);
        run_drops();
        const bool did_step = run_generations(lock);
        if (!did_job && !did_step && !stopping_ && drops_.empty()) {
            work_.wait(lock);
        }
    }
    for (auto & job : jobs_) {
        finish(*job, KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    for (auto & gen : generations_) {
        gen->fail(KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    jobs_.clear();
    generations_.clear();
    ended_ = true;
    done_.notify_all();
    unwatched_ = true;
    watch_.notify_all();
}

void engine::run_drops() {
    for (int id : drops_) {
        if (poison_.empty() && guarded([&] { llama_memory_seq_rm(llama_get_memory(ctx_), id, -1, -1); }) != KOLLAMA_OK) {
            poison_ = kollama_last_error();
        }
        shared_.cut(id, 0);
    }
    drops_.clear();
}

bool engine::run_job(std::unique_lock<std::mutex> & lock) {
    if (jobs_.empty()) {
        return false;
    }
    const std::shared_ptr<job> job = jobs_.front();
    jobs_.pop_front();
    abort_   = job->cancelled || stopping_;
    running_ = job;
    kollama_status status = poison_.empty() ? KOLLAMA_OK : KOLLAMA_ERROR_ENGINE;
    std::string    reason = poison_;
    if (status == KOLLAMA_OK) {
        lock.unlock();
        status = guarded([&] {
            check_cancelled(*job);
            job->work(*job);
        });
        reason = status == KOLLAMA_OK ? "" : kollama_last_error();
        lock.lock();
    }
    running_ = nullptr;
    if (status == KOLLAMA_ERROR_ENGINE && poison_.empty()) {
        poison_ = reason;
    }
    finish(*job, status, std::move(reason));
    return true;
}

void engine::finish(job & job, kollama_status status, std::string reason) {
    job.status = status;
    job.reason = std::move(reason);
    if (&job != running_.get()) { // it would not be in use
        job.work = nullptr; // what it captured is released here, not with the caller's handle
    }
    if (job.seq) {
        set_idle(*job.seq);
    }
    done_.notify_all();
}

void engine::check_cancelled(const job & job) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (job.cancelled || stopping_) {
        lock.unlock();
        throw_cancelled();
    }
}

void engine::throw_cancelled() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    throw failure(KOLLAMA_ERROR_ABORTED, "cancelled");
}

bool engine::abort_requested(void * self) {
    engine * e = static_cast<engine *>(self);
    if (e->abandoned_.load(std::memory_order_relaxed)) {
        crew::park(); // rather than spin in the barrier
    }
    return e->is_cancelled() || (e->pace_ && e->pace_->gives_up());
}

// ---- callers -------------------------------------------------------------------------------------

std::shared_ptr<job> engine::submit(std::shared_ptr<sequence> seq, std::function<void(job &)> work) {
    auto j  = std::make_shared<job>();
    j->seq  = std::move(seq);
    j->work = std::move(work);
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (j->seq) {
        if (j->seq->busy) {
            throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
        }
        j->seq->busy = true;
    }
    jobs_.push_back(j);
    work_.notify_one();
    return j;
}

kollama_status engine::wait(job & job, int32_t timeout_ms) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return job.status != KOLLAMA_PENDING; });
    return job.status > KOLLAMA_END ? report(job.status, job.reason) : job.status;
}

void engine::cancel(job & job) {
    std::lock_guard<std::mutex> lock(mutex_);
    cancel_locked(job);
}

// A job that runs ends within one graph; one that waits for its turn ends here.
void engine::cancel_locked(job & job) {
    job.cancelled = true;
    if (running_.get() == &job) {
        abort_ = true;
        return;
    }
    const auto queued = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto & other) { return other.get() == &job; });
    if (queued != jobs_.end()) {
        const std::shared_ptr<kollama::job> keep = *queued;
        jobs_.erase(queued);
        finish(job, KOLLAMA_ERROR_ABORTED, "cancelled");
    }
}

void engine::with_idle(sequence & seq, const std::function<void()> & f) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the context is closed");
    }
    if (seq.busy) {
        throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
    }
    f();
}

std::unique_ptr<model_pin> engine::pin_model() {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    return std::make_unique<model_pin>(model_);
}

std::shared_ptr<sequence> engine::take_slot() {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (embeds_) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "this context was made for embeddings: it has no sequences");
    }
    const auto free = std::find(slots_.begin(), slots_.end(), false);
    if (free == slots_.end()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT,
                      format("all %zu sequences of this context are in use: close one, or make the context with a larger n_seq_max",
                             slots_.size()));
    }
    auto seq = std::make_shared<sequence>();
    seq->id  = static_cast<int>(free - slots_.begin());
    *free    = true;
    sequences_[seq->id] = seq;
    return seq;
}

void engine::drop_slot(sequence & seq) {
    std::lock_guard<std::mutex> lock(mutex_);
    seq.dropped = true;
    if (!seq.busy) {
        set_idle(seq);
        return;
    }
    if (running_ && running_->seq.get() == &seq) {
        cancel_locked(*running_);
    }
    const std::deque<std::shared_ptr<job>> jobs = jobs_;
    for (auto & job : jobs) {
        if (job->seq.get() == &seq) {
            cancel_locked(*job);
        }
    }
    const std::vector<std::shared_ptr<generation>> generations = generations_;
    for (auto & gen : generations) {
        if (gen->seq.get() == &seq) {
            cancel_locked(*gen);
        }
    }
}

void engine::set_idle(sequence & seq) {
    seq.busy = false;
    if (seq.dropped) {
        slots_[seq.id] = false; // may be taken at once: its memory is emptied before anything else runs
        drops_.push_back(seq.id);
        work_.notify_one();
    }
}

} // namespace kollama

using namespace kollama;

kollama_status kollama_context_init(kollama_model * model, const kollama_context_params * params, kollama_context ** out) {
    return guarded([&] {
        const at_work here;
        if (!here) {
            throw failure(KOLLAMA_ERROR_CLOSED, "the interpreter is at its end");
        }
        *out = new kollama_context{ engine::create(model, *params) };
    });
}

void kollama_context_free(kollama_context * ctx) {
    if (ctx) {
        ctx->engine->close();
        delete ctx;
    }
}

