// The threads that compute for one context, and what becomes of them when one fails in a graph.
//
// The others then wait for it in a barrier that has no exit, and spin. No thread can be made to leave
// ggml's code from outside, so they are stopped where they stand, for ever.

#pragma once

#include "backend.h"

#include "ggml-cpu.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace kollama {

class engine;

class crew {
  public:
    // Of a pool that idles. From then on its threads know which engine they compute for. Throws.
    void enlist(ggml_threadpool * pool, int32_t n_threads, engine & e);

    // Calls work(i) on the i-th of n_threads of the pool's, of which the calling one is the first, while no graph
    // is computed. It must not throw; this does, where the threads do not answer.
    void run(int32_t n_threads, const std::function<void(int32_t)> & work);

    // Likewise the calling thread, until it ends.
    void join(engine & e);

    // The engine that the calling thread computes for, or null.
    static engine * employer();

    static bool is_worker(); // of a pool: not the engine's own thread

    // That which the calling thread was enlisted with, or null.
    static ggml_threadpool * pool();

    // Stops all, the calling thread among them: in a while, when the others have come to the barrier.
    [[noreturn]] void end();

    // Stops the calling thread alone.
    [[noreturn]] static void park();

    size_t size() const { return members_.size(); }

  private:
    static void on_run(ggml_tensor * dst, int ith, int nth, void * self);

    engine *              employer_ = nullptr;
    ggml_threadpool *     pool_     = nullptr;
    std::vector<uint64_t> members_; // by index in the pool; the first is the engine's thread

    // A graph of one operation, which calls each thread of the pool: there is no other way to run code there.
    ggml_context_owner ctx_;
    ggml_backend_owner backend_;
    ggml_cgraph *      graph_ = nullptr;
    const std::function<void(int32_t)> * work_ = nullptr;
};

} // namespace kollama
