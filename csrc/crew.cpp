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

void crew::on_roll_call(ggml_tensor *, int ith, int, void * self) {
    crew & c = *static_cast<crew *>(self);
    if (ith > 0) { // the first is the caller, who only lends a hand
        employer_of_this = c.employer_;
        this_is_a_worker = true;
        c.members_[ith]  = this_thread_id();
    }
}

// A graph of one operation that calls each thread of the pool: there is no other way to run code there.
void crew::enlist(ggml_threadpool * pool, int32_t n_threads, engine & e) {
    employer_ = &e;
    pool_     = pool;
    members_.assign(n_threads, 0);
    if (n_threads == 1) {
        return;
    }
    const size_t size = ggml_tensor_overhead() * 4 + ggml_graph_overhead_custom(8, false) + 1024;
    const ggml_context_owner ctx(ggml_init({ size, nullptr, false }));
    const ggml_backend_owner backend(ggml_backend_dev_init(cpu_device(), nullptr));
    if (!ctx || !backend) {
        throw std::bad_alloc();
    }
    cpu_function<decltype(ggml_backend_cpu_set_n_threads)>("ggml_backend_set_n_threads")(backend.get(), n_threads);
    cpu_function<decltype(ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(backend.get(), pool);
    ggml_cgraph * graph = ggml_new_graph_custom(ctx.get(), 8, false);
    ggml_build_forward_expand(graph, ggml_custom_4d(ctx.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, on_roll_call,
                                                    GGML_N_TASKS_MAX, this));
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
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
