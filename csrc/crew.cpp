#include "crew.h"

#include "backend.h"
#include "internal.h"
#include "suspend.h"

#include "ggml-backend.h"

#include <chrono>
#include <thread>

namespace kollama {
namespace {

thread_local engine * employer_of_this = nullptr;
thread_local bool     this_is_a_worker = false;

thread_local ggml_threadpool * pool_of_this = nullptr;

// By then every other thread of the graph has come to the barrier: a node takes far less. One that was
// stopped before it could hold a lock of the allocator.
constexpr std::chrono::seconds GRACE{2};

} // namespace

engine * crew::employer() {
    return employer_of_this;
}

bool crew::is_worker() {
    return this_is_a_worker;
}

ggml_threadpool * crew::pool() {
    return pool_of_this;
}

void crew::join(engine & e) {
    employer_of_this = &e;
    pool_of_this     = pool_;
    members_[0]      = this_thread_id();
}

void crew::on_run(ggml_tensor *, int ith, int, void * self) {
    (*static_cast<crew *>(self)->work_)(ith);
}

void crew::enlist(ggml_threadpool * pool, int32_t n_threads, engine & e) {
    employer_ = &e;
    pool_     = pool;
    members_.assign(n_threads, 0);
    if (n_threads == 1) {
        return;
    }
    const size_t size = ggml_tensor_overhead() * 4 + ggml_graph_overhead_custom(8, false) + 1024;
    ctx_.reset(ggml_init({ size, nullptr, false }));
    backend_.reset(ggml_backend_dev_init(cpu_device(), nullptr));
    if (!ctx_ || !backend_) {
        throw std::bad_alloc();
    }
    cpu_function<decltype(ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(backend_.get(), pool);
    graph_ = ggml_new_graph_custom(ctx_.get(), 8, false);
    ggml_build_forward_expand(graph_, ggml_custom_4d(ctx_.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, on_run, GGML_N_TASKS_MAX, this));
    run(n_threads, [this](int32_t i) {
        if (i > 0) { // the first is the caller, who only lends a hand
            employer_of_this = employer_;
            this_is_a_worker = true;
            members_[i]      = this_thread_id();
        }
    });
}

void crew::run(int32_t n_threads, const std::function<void(int32_t)> & work) {
    if (n_threads == 1) {
        work(0);
        return;
    }
    work_ = &work;
    cpu_function<decltype(ggml_backend_cpu_set_n_threads)>("ggml_backend_set_n_threads")(backend_.get(), n_threads);
    if (ggml_backend_graph_compute(backend_.get(), graph_) != GGML_STATUS_SUCCESS) {
        throw failure(KOLLAMA_ERROR_ENGINE, "the compute threads do not answer");
    }
}

void crew::park() {
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

void crew::end() {
    std::this_thread::sleep_for(GRACE);
    const uint64_t me = this_thread_id();
    for (uint64_t other : members_) {
        if (other != 0 && other != me) {
            suspend_thread(other);
        }
    }
    park();
}

} // namespace kollama
