// The life of an engine: how it is made and closed, and what becomes of it when an assertion fails.

#include "engine.h"

#include "backend.h"
#include "generation.h"
#include "products/accelerator.h"

#include <algorithm>
#include <cstring>
#include <utility>

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

std::shared_ptr<engine> engine::create(kollama_model * model, const kollama_context_params & params) {
    check_not_forked();
    if (params.n_seq_max > llama_max_parallel_sequences()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("n_seq_max is %u; llama.cpp holds at most %zu sequences in a context",
                                                     params.n_seq_max, llama_max_parallel_sequences()));
    }
    std::shared_ptr<engine> self(new engine(model, params)); // with room for so many
    if (model->remote) {
        try {
            model->remote->call([self, params] { self->open(params); });
        } catch (const failure &) {
            if (self.use_count() > 1) {
                self->leave_behind(); // the thread that has it waits for a server
            }
            throw;
        }
        model->remote->add(self);
    } else {
        self->open(params);
    }
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
    if (p.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO && product_backend_computes()) {
        p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED; // what llama.cpp finds out where the CPU's own device computes
    }
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
    may_share_  = may_repeat_;
    ration_.set_most(llama_n_ubatch(ctx_)); // llama.cpp computes no more at once anyway
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
        leave_behind();
    }
    if (left_behind_) {
        return;
    }
    if (!ctx_) { // it was not made
        --model_->n_contexts;
        return;
    }
    drafting_ = nullptr; // before the threads that it computes on
    try {
        call_on(model_->remote, [ctx = std::exchange(ctx_, nullptr), pool = std::exchange(threadpool_, nullptr),
                                 loras = std::move(loras_)]() mutable {
            llama_free(ctx);
            loras.clear();
            if (pool) {
                cpu_function<decltype(ggml_threadpool_free)>("ggml_threadpool_free")(pool);
            }
        });
    } catch (const failure & e) { // a server is gone: so it is with an abandoned one
        log_warning(std::string(e.what()) + "; the memory of the context stays until the process ends");
        new std::shared_ptr<engine>(weak_from_this().lock());
        leave_behind();
        return;
    }
    --model_->n_contexts;
}

void engine::leave_behind() {
    if (!left_behind_.exchange(true)) {
        ++model_->n_abandoned;
        if (drafting_ && drafting_->model()) {
            drafting_->model()->count_as_abandoned();
        }
    }
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
    if (crew::is_worker() || (in_backend() && (e->crew_.size() > 1 || has_gpu() || e->model_->remote))) {
        if (e->abandon(KOLLAMA_ERROR_ENGINE, message)) {
            log_warning("an assertion failed inside a graph: the memory of its context and of its model stays until the process ends");
            e->crew_.end();
        }
        crew::park(); // another thread of the graph was faster
    }
}

// What waits for this engine hears of it; the engine's thread, which cannot be told, is in the graph and
// never comes back to what it works on.
bool engine::abandon(kollama_status status, const std::string & reason) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (abandoned_) {
        return false;
    }
    kept_      = shared_from_this();
    abandoned_ = true;
    poison_    = reason;
    poison_status_ = status;
    if (reserves_) { // the engine's thread computes with the lock
        model_->loras_stuck = true;
    }
    if (drafting_ && drafting_->model()) {
        drafting_->model()->stop_for_ever();
    }
    if (running_) {
        finish(*running_, status, poison_);
    }
    for (auto & job : jobs_) {
        finish(*job, status, poison_);
    }
    for (auto & gen : generations_) {
        gen->fail(status, poison_);
    }
    jobs_.clear();
    generations_.clear();
    done_.notify_all();
    return true;
}

void engine::lose_servers(const std::string & reason) {
    if (abandon(KOLLAMA_ERROR_REMOTE, reason)) {
        log_warning(reason + "; the memory of the context and of the model here stays until the process ends");
    }
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
        throw failure(poison_status_, poison_status_ == KOLLAMA_ERROR_REMOTE ? poison_
                      : "this context cannot be used since an assertion failed in it: " + poison_);
    }
}

std::unique_ptr<model_pin> engine::pin_model() {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    return std::make_unique<model_pin>(model_);
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
